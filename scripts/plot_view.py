"""The page of 'lightmuseg view' as a picture, for the README.

python scripts/plot_view.py RESULTS --output view.jpg [--slide NAME] [--scroll 6] [--at 0.5,0.5] [--opacity 40]

RESULTS is a folder of results. Needs Chromium and its driver; on Debian: apt install chromium chromium-driver.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fire
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole

WIDTH, HEIGHT = 1400, 900
JPEG_QUALITY = 80
# For a page on a busy computer; for OpenSeadragon's animations.
PATIENCE_S, ANIMATION_S = 60, 0.6
# Of the wheel that are one step for OpenSeadragon.
WHEEL = 100


def plot(
    results: str, output: str, slide: str = "", scroll: int = 0, at: Sequence[float] = (0.5, 0.5), opacity: int = 40
) -> None:
    """Show a slide in Chromium, point at a place of it, and keep what is seen.

    Args:
        results: the folder.
        output: the picture, .jpg or .png.
        slide: part of the name of the slide; else the first.
        scroll: steps of the wheel to zoom in.
        at: where the mouse is, shares of the view's width and height.
        opacity: of the map, percent.
    """
    with served(Path(results)) as address, browser() as chromium:
        chromium.get(address)
        wait_for(chromium, "#list button[aria-current]")
        if slide:
            wait_for(chromium, f'#list button[title*="{slide}"]').click()
        box = chromium.find_element(By.ID, "opacity")
        chromium.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", box, opacity
        )
        settle(chromium)
        area = chromium.find_element(By.ID, "slide")
        right, down = (round((share - 0.5) * area.size[side]) for share, side in zip(at, ("width", "height")))
        for _ in range(scroll):
            ActionChains(chromium).scroll_from_origin(ScrollOrigin.from_element(area, right, down), 0, -WHEEL).perform()
            time.sleep(ANIMATION_S / 4)
        settle(chromium)
        ActionChains(chromium).move_to_element_with_offset(area, right - 2, down).move_by_offset(2, 0).perform()
        time.sleep(ANIMATION_S)
        picture = screenshot(chromium)
    options = {"quality": JPEG_QUALITY} if Path(output).suffix.lower() in (".jpg", ".jpeg") else {"optimize": True}
    write_whole(output, lambda path: picture.save(path, **options))
    print(f"{output}: {picture.width} x {picture.height} pixels, {Path(output).stat().st_size / 1000:.0f} kB")


@contextmanager
def served(results: Path) -> Iterator[str]:
    """The address of a server of these results, for the length of the block."""
    command = [sys.executable, "-W", "ignore", "-m", "lightmuseg.cli", "view", str(results), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline() if server.stdout else ""
            if not line:
                raise InputError(f"{results}: cannot be shown; see above.")
            yield line.split()[0]
        finally:
            server.terminate()


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium without a window, with a log of what it asks for."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        raise InputError("chromium and its driver are not installed; on Debian: apt install chromium chromium-driver.")
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(paths[0])
        # /dev/shm is small in containers
        for word in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}"):
            options.add_argument(word)
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # its own sandbox does not start for root
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        chromium = webdriver.Chrome(options, webdriver.ChromeService(str(paths[1])))
        try:
            # of the page without the window's frame
            chromium.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False},
            )
            yield chromium
        finally:
            chromium.quit()


def wait_for(chromium: webdriver.Chrome, selector: str):
    """The first element of a selector, once there is one."""
    wait = WebDriverWait(chromium, PATIENCE_S, 0.1)
    return wait.until(lambda page: page.find_elements(By.CSS_SELECTOR, selector))[0]


def settle(chromium: webdriver.Chrome) -> None:
    """Wait until the view has come to rest and has all its tiles."""
    for seconds in (ANIMATION_S, ANIMATION_S / 4):
        time.sleep(seconds)
        wait_for(chromium, "#slide[aria-busy=false]")


def screenshot(chromium: webdriver.Chrome) -> Image.Image:
    """What is seen."""
    return Image.open(io.BytesIO(chromium.get_screenshot_as_png())).convert("RGB")


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(plot)
