"""The page in Chromium, by real clicks and keys; what is seen is compared with slide and map."""

import importlib.util
import io
import itertools
import json
import math
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.view

TUMOR, STROMA = (220, 38, 38), (34, 160, 70)
# level-0 places of the made slides: in the tumor, in its hole, in the stroma
IN_TUMOR, IN_HOLE, IN_STROMA = (280, 280), (400, 400), (1040, 640)


@pytest.fixture(scope="module")
def plot(root):
    """The script that makes the README's picture; it knows how to serve and to browse."""
    spec = importlib.util.spec_from_file_location("plot_view", root / "scripts" / "plot_view.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def chromium(plot):
    with plot.browser() as chromium:
        yield chromium


class Page:
    """The page as a person has it: what is seen, the mouse, the keys."""

    def __init__(self, plot, chromium, address, folder):
        self.plot, self.chromium, self.address, self.folder = plot, chromium, address, folder
        chromium.get("about:blank")
        chromium.get_log("performance")
        chromium.get_log("browser")
        chromium.get(address)
        plot.wait_for(chromium, "#list button[aria-current]")
        self.settle()

    def settle(self):
        self.plot.settle(self.chromium)

    def find(self, selector):
        return self.plot.wait_for(self.chromium, selector)

    def text(self, selector):
        return self.find(selector).text

    def keys(self, text):
        self.plot.ActionChains(self.chromium).send_keys(text).perform()
        self.settle()

    def click(self, selector):
        self.find(selector).click()
        self.settle()

    def frame(self):
        """Screen pixels of a level-0 pixel, and the screen's place of the slide's corner."""
        transform = self.find("#outline path").get_attribute("transform")
        scale, _, _, _, x, y = map(float, re.fullmatch(r"matrix\((.*)\)", transform)[1].split())
        area = self.find("#slide").rect
        return scale, area["x"] + x, area["y"] + y

    def on_screen(self, place0):
        scale, x, y = self.frame()
        return round(x + scale * place0[0]), round(y + scale * place0[1])

    def colours(self, *places0):
        """Mean colour of the few screen pixels at level-0 places."""
        picture = self.plot.screenshot(self.chromium)
        picture.save(self.folder / f"{time.monotonic():.2f}.png")
        pixels = np.asarray(picture, float)
        found = []
        for x, y in map(self.on_screen, places0):
            found.append(pixels[y - 1 : y + 2, x - 1 : x + 2].mean(axis=(0, 1)))
        return found

    def point_at(self, place0):
        area, (x, y) = self.find("#slide").rect, self.on_screen(place0)
        middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
        answered = "return performance.getEntriesByType('resource').filter(e => e.name.includes('/region?')).length"
        for nudge in (-2, 0):
            self.chromium.execute_script("performance.clearResourceTimings()")
            move = self.plot.ActionChains(self.chromium).move_to_element_with_offset
            move(self.find("#slide"), round(x - middle[0]) + nudge, round(y - middle[1])).perform()
            WebDriverWait(self.chromium, 60).until(lambda chromium: chromium.execute_script(answered))
        self.settle()

    def requests(self):
        messages = [json.loads(entry["message"])["message"] for entry in self.chromium.get_log("performance")]
        return [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]


@pytest.fixture(scope="module")
def address(plot, made):
    """Of a server of the made results."""
    with plot.served(made / "results") as address:
        yield address


@pytest.fixture
def page(plot, chromium, address, tmp_path):
    return Page(plot, chromium, address, tmp_path)


@pytest.fixture(scope="module")
def pixels(made):
    return tifffile.imread(made / "one.tif", key=0).astype(float)


def near(colour, expected):
    return np.abs(colour - expected).max() < 14


def under(pixels, place0, colour=(0, 0, 0), opacity=0.0):
    return pixels[place0[1], place0[0]] * (1 - opacity) + np.array(colour) * opacity


def test_map_lies_over_the_slide_and_follows_classes_and_opacity(page, pixels):
    assert page.text("#name") == "one"
    bare = [under(pixels, place) for place in (IN_TUMOR, IN_HOLE, IN_STROMA)]
    tumor, hole, stroma = page.colours(IN_TUMOR, IN_HOLE, IN_STROMA)
    assert near(tumor, under(pixels, IN_TUMOR, TUMOR, 0.4))
    assert near(hole, bare[1])
    assert near(stroma, under(pixels, IN_STROMA, STROMA, 0.4))

    page.click("#classes label:first-child")
    tumor, hole, stroma = page.colours(IN_TUMOR, IN_HOLE, IN_STROMA)
    assert near(tumor, bare[0])
    assert not near(tumor, under(pixels, IN_TUMOR, TUMOR, 0.4))
    assert near(stroma, under(pixels, IN_STROMA, STROMA, 0.4))

    page.keys("2")
    assert all(map(near, page.colours(IN_TUMOR, IN_HOLE, IN_STROMA), bare))
    page.keys("12")
    page.keys("]]]]")
    assert page.text("#opacity-text") == "80 %"
    tumor, hole, stroma = page.colours(IN_TUMOR, IN_HOLE, IN_STROMA)
    assert near(tumor, under(pixels, IN_TUMOR, TUMOR, 0.8))
    assert near(hole, bare[1])
    assert near(stroma, under(pixels, IN_STROMA, STROMA, 0.8))
    page.find("#opacity").send_keys(Keys.HOME)
    page.settle()
    assert page.text("#opacity-text") == "0 %"
    assert all(map(near, page.colours(IN_TUMOR, IN_HOLE, IN_STROMA), bare))


def test_region_under_the_mouse_tells_its_class_and_size(page):
    page.point_at(IN_TUMOR)
    # 200 x 200 less 40 x 40 pixels of 1 um
    assert page.text("#region") == "tumor38,400 µm²"
    assert page.find("#outline path").get_attribute("d").count("M") == 2
    page.point_at(IN_HOLE)
    assert not page.find("#region").is_displayed()
    page.point_at(IN_STROMA)
    assert page.text("#region").startswith("stroma")
    # what is off is not told
    page.keys("2")
    page.point_at((1041, 641))
    assert not page.find("#region").is_displayed()


def test_zoom_and_scale_bar(page, pixels):
    scale, x, y = page.frame()
    page.keys("++")
    assert page.frame()[0] == pytest.approx(scale * 2.25, rel=0.01)
    page.click("#zoom-out")
    assert page.frame()[0] == pytest.approx(scale * 1.5, rel=0.01)
    length, unit = page.text("#scale-text").split()
    width = page.find("#scale-bar").rect["width"]
    assert unit == "µm"
    assert width == pytest.approx(float(length) / 0.5 * page.frame()[0], abs=1.1)
    area, spot = page.find("#slide"), page.plot.ScrollOrigin.from_element(page.find("#slide"), 0, 0)
    before = page.frame()[0]
    page.plot.ActionChains(page.chromium).scroll_from_origin(spot, 0, -300).perform()
    page.settle()
    assert page.frame()[0] > 1.1 * before
    page.keys("0")
    assert page.frame() == pytest.approx((scale, x, y), abs=1)
    page.keys("d")
    assert page.frame()[1] < x - 0.2 * area.rect["width"]
    assert near(*page.colours(IN_STROMA), under(pixels, IN_STROMA, STROMA, 0.4))


def test_keys_and_list_lead_from_slide_to_slide(page, made):
    other = tifffile.imread(made / "two.tif", key=0).astype(float)
    assert page.text("#count") == "2 slides"
    page.keys("j")
    assert page.text("#name") == "two"
    assert page.text("#place") == "patient 7/left/two"
    assert near(*page.colours((30, 30)), under(other, (30, 30)))
    page.keys("j")
    assert page.text("#name") == "two"
    page.keys("k")
    assert page.text("#name") == "one"
    page.click("#list li:nth-child(2) button")
    assert page.text("#name") == "two"
    page.chromium.back()
    page.settle()
    assert page.text("#name") == "one"

    page.keys("/")
    page.keys("PATIENT")
    assert page.text("#count") == "1 of 2 slides"
    # letters are no keys while they are typed
    assert page.text("#name") == "one"
    page.keys(Keys.ESCAPE)
    page.keys("j")
    assert page.text("#name") == "two"
    page.find("#filter").send_keys(Keys.CONTROL + "a" + Keys.NULL + Keys.DELETE)
    page.settle()
    assert page.text("#count") == "2 slides"
    page.keys(Keys.ESCAPE)
    page.keys("?")
    assert page.find("#help").is_displayed()
    assert "next slide" in page.text("#help")
    page.keys("k")
    page.keys(Keys.ESCAPE)
    assert not page.find("#help").is_displayed()
    assert page.text("#name") == "two"


def test_works_without_a_mouse(page):
    page.keys("r")
    assert page.text("#region").startswith("stroma") or "nothing" in page.text("#region")
    seen = set()
    for _ in range(30):
        page.plot.ActionChains(page.chromium).send_keys(Keys.TAB).perform()
        seen.add(page.chromium.execute_script(
            "const e = document.activeElement; return e.id || e.dataset.index || e.title || e.tagName"
        ))  # fmt: skip
    assert {"filter", "sort", "refresh", "one", "zoom-in", "home", "1", "2", "opacity", "report"} <= seen
    unnamed = page.chromium.execute_script("""
        return [...document.querySelectorAll("button, input, select, a")].filter((e) =>
            !(e.textContent.trim() || e.getAttribute("aria-label") || e.labels?.length)).map((e) => e.outerHTML)
    """)
    assert unnamed == []


def test_page_asks_for_nothing_elsewhere_and_breaks_no_rule(page):
    page.keys("j+?")
    asked = page.requests()
    assert len(asked) > 15
    assert {"/".join(url.split("/")[:3]) + "/" for url in asked if not url.startswith("data:")} == {page.address + "/"}
    assert [entry for entry in page.chromium.get_log("browser") if entry["level"] != "INFO"] == []


def test_names_and_warnings_are_text_and_a_slide_that_is_gone_is_told(plot, chromium, made, tmp_path):
    root = tmp_path / "results"
    name = "<img src=x onerror=alert(1)>"
    shutil.copytree(made / "results" / "one", root / name)
    path = root / name / "run.json"
    path.write_text(path.read_text().replace("one.tif", "gone.tif"))
    (root / "bad").mkdir()
    (root / "bad" / "run.json").write_text("{}")
    (root / "cohort.csv").write_text("slide,status,message\nbroken.svs,failed,<i>cut short</i>\n")
    with plot.served(root) as address:
        page = Page(plot, chromium, address, tmp_path)
        assert page.text("#name") == name
        warnings = page.text("#warnings")
        assert "The slide is not shown:" in warnings
        assert "gone.tif: is not there" in warnings
        assert "the <b>slide</b> is blurred" in warnings
        assert page.text("#skipped summary") == "1 run.json left out"
        page.click("#failed summary")
        assert page.text("#failed summary") == "1 slide failed"
        assert page.text("#failed li") == "broken.svs: <i>cut short</i>"
        assert chromium.find_elements(plot.By.CSS_SELECTOR, "#list img[src=x], #warnings b, #name img") == []
        # the map alone, where it belongs
        tumor, hole, stroma = page.colours(IN_TUMOR, IN_HOLE, IN_STROMA)
        dark = hole
        assert dark.max() < 60
        assert near(tumor, 0.6 * dark + 0.4 * np.array(TUMOR))
        assert near(stroma, 0.6 * dark + 0.4 * np.array(STROMA))


def test_a_thousand_slides(plot, chromium, made, tmp_path):
    source = made / "results" / "one"
    for number in range(1000):
        folder = tmp_path / "many" / f"batch {number % 10}" / f"slide {number}"
        folder.mkdir(parents=True)
        for name in ("run.json", "overlay.png", "classes.tif", "regions.geojson"):
            (folder / name).hardlink_to(source / name)
        (folder / "measurements.csv").write_text(f"measure,value,unit\ntumor_area,{number / 100},mm2\n")
    with plot.served(tmp_path / "many") as address:
        page = Page(plot, chromium, address, tmp_path)
        assert page.text("#count") == "1000 slides"
        thumbnails = [url for url in page.requests() if url.endswith("thumbnail.jpg")]
        assert 5 <= len(thumbnails) < 200, "only those that are near are made"
        plot.wait_for(chromium, "#sort").send_keys("tumor")
        page.settle()
        first = page.find("#list li:first-child")
        assert first.text.split("\n") == ["slide 999", "batch 9", "tumor 9.99 mm² ⚠ 1"]
        page.find("#filter").send_keys("slide 77")
        page.settle()
        # 77, 177, 277 ... and 770 to 779
        assert page.text("#count") == "19 of 1000 slides"
        page.keys(Keys.ESCAPE)
        assert page.find("#filter").get_property("value") == "slide 77"
        page.keys("j")
        page.keys("j")
        assert page.text("#name") == "slide 877"
        page.colours(IN_TUMOR)


def write_large(path, side, tile=512):
    """A pyramid of one JPEG tile again and again, which is plain: so all levels show the same."""
    encoded = io.BytesIO()
    Image.new("RGB", (tile, tile), (180, 90, 180)).save(encoded, "JPEG", quality=85, subsampling=0)
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level in range(7):
            width = side >> level
            file.write(
                itertools.repeat(encoded.getvalue(), math.ceil(width / tile) ** 2), shape=(width, width, 3),
                dtype=np.uint8, tile=(tile, tile), photometric="ycbcr", subsampling=(1, 1), compression="jpeg",
                subfiletype=int(level > 0), resolution=(1e4 / 0.25 / 2**level,) * 2, resolutionunit="CENTIMETER",
                metadata=None,
            )  # fmt: skip


def test_a_slide_of_80000_pixels_stays_on_disk(plot, chromium, new_result, tmp_path):
    side, downsample = 80_000, 8
    write_large(tmp_path / "large.tif", side)
    classes = np.zeros((side // downsample,) * 2, np.uint8)
    classes[2000:6000, 3000:8000] = 1
    new_result(tmp_path / "out" / "large", tmp_path / "large.tif", classes, (), (side, side), 0.25, downsample)
    with plot.served(tmp_path / "out") as address:
        processes = psutil.Process().children()
        (server,) = [one for one in processes if str(tmp_path / "out") in one.cmdline()]
        before = server.memory_info().rss
        page = Page(plot, chromium, address, tmp_path)
        inside = (40_000, 40_000)
        # outside, the slide is of this mean colour
        outside, tumor = page.colours((12_000, 70_000), inside)
        assert near(tumor, 0.6 * outside + 0.4 * np.array(TUMOR))
        page.point_at(inside)
        # 5000 x 4000 pixels of 2 um
        assert "80 mm²" in page.text("#region")
        for _ in range(12):
            page.keys("+")
        page.keys("ddss")
        assert page.frame()[0] > 1
        assert page.find("#scale-text").text.endswith("µm")
        page.keys("0")
        after = server.memory_info()
    assert len({url for url in page.requests() if "/slide/" in url}) > 30
    # the slide's level 0 alone is 19,200 MB
    assert after.rss - before < 500e6


def test_commands_of_the_page_on_looking(root, made, tmp_path):
    text = (root / "docs" / "view.md").read_text(encoding="utf-8")
    listed = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(listed) == 3
    (tmp_path / "results").mkdir()
    shutil.copytree(made / "results", tmp_path / "results" / "slides")
    for line in listed:
        words = [sys.executable if word == "python" else word for word in line.split()]
        words = [str(root / word) if word.startswith("scripts/") else word for word in words]
        if words[0] != "lightmuseg":
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert Image.open(tmp_path / "view.jpg").size == (1400, 900)
            continue
        words[:1] = [sys.executable, "-W", "ignore", "-m", "lightmuseg.cli"]
        with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
            said = server.stdout.readline()
            address = said.split()[0]
            assert address == f"http://127.0.0.1:{8090 if '--port' in line else 8080}"
            with urllib.request.urlopen(address) as answer:
                assert b"LightMuSeg" in answer.read()
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=120) == 0
