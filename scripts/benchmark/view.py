"""How soon 'lightmuseg view' answers a tile: python scripts/benchmark/view.py SOURCE [OPTIONS].

A slide of real pixels is made from SOURCE, an image or a folder of images, by scripts/make_pyramid.py, and a map from
its own shades, which is rougher than a network's. The server is a process of its own, asked over HTTP. Writes
docs/benchmarks/view.*.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fire
import numpy as np
import tifffile
from figures import DOCS, processor, publish, spread, table
from PIL import Image

from lightmuseg.outputs.pyramid import write_pyramid
from lightmuseg.text_files import write_json

ROOT = Path(__file__).parents[2]
MPP, NAMES = 0.25, ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
SHADES = (110, 140, 165, 190)
GRAIN = 4
# A browser asks for so many at once.
TOGETHER = 6
# Of a level that has few tiles, so often are they asked for again together.
LEAST = 20
SEED = 42


def benchmark(source: str, side: int = 20_000, tiles: int = 100, starts: int = 5, output: str = str(DOCS)) -> None:
    """Time tiles of the slide and of the map at every second level.

    Args:
        source: an image of tissue or a folder of such.
        side: of the slide in pixels.
        tiles: of a level, by chance.
        starts: of the server, for the first tile after it.
        output: folder of the figures.
    """
    busy = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        words = ["--source", source, "--output", folder / "slide.tif", "--side", side, "--mpp", MPP]
        command = [sys.executable, "-W", "ignore", ROOT / "scripts" / "make_pyramid.py", *words]
        subprocess.run([str(word) for word in command], check=True)
        _write_result(folder / "results" / "slide", folder / "slide.tif", side)
        first: dict[str, list[float]] = {"slide": [], "map": []}
        for _ in range(starts):
            with _served(folder / "results") as port:
                for kind, times in first.items():
                    finest = _finest(side if kind == "slide" else side // 2)
                    times.append(_asked(port, [_address(_listed(port), kind, finest, 0, 0)])[0][0])
        with _served(folder / "results") as port:
            details = json.loads(_asked(port, [f"/results/{_listed(port)['id']}"])[0][1])
            rows = [
                _level(port, details, kind, level, tiles)
                for kind in ("slide", "map")
                for level in range(details[kind]["levels"]["max_level"], details[kind]["levels"]["min_level"] - 1, -2)
            ]
    _publish(rows, first, {"side": side, "tiles": tiles, "starts": starts, "load average before": busy}, output)


def _write_result(folder: Path, slide: Path, side: int) -> None:
    """What 'lightmuseg segment' leaves, as far as tiles need it; the map has half the slide's pixels a side."""
    folder.mkdir(parents=True)
    grey = Image.fromarray(tifffile.imread(slide, key=1)).convert("L")
    coarse = np.asarray(grey.reduce(GRAIN))
    shades = np.digitize(coarse, SHADES)
    classes = np.kron((len(SHADES) - shades).astype(np.uint8), np.ones((GRAIN, GRAIN), np.uint8))
    classes = np.ascontiguousarray(classes[: grey.height, : grey.width])
    height, width = classes.shape

    def bands(rows: int) -> Iterator[np.ndarray]:
        return (classes[top : top + rows] for top in range(0, height, rows))

    class_map = SimpleNamespace(width=width, height=height, mpp=2 * MPP, downsample=2, class_names=NAMES, bands=bands)
    write_pyramid(folder / "classes.tif", class_map)
    record = {
        "slide": str(slide), "reader": "auto", "level0_size": [side, side], "level0_mpp": MPP,
        "map_size": [width, height], "map_mpp": 2 * MPP, "options": {"class_names": NAMES},
    }  # fmt: skip
    write_json(folder / "run.json", record)


@contextmanager
def _served(results: Path) -> Iterator[int]:
    command = [sys.executable, "-W", "ignore", "-m", "lightmuseg.cli", "view", str(results), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield int(server.stdout.readline().split()[0].rsplit(":", 1)[1])
        finally:
            server.terminate()


def _finest(side: int) -> int:
    return math.ceil(math.log2(side))


def _listed(port: int) -> Any:
    """The one result."""
    return json.loads(_asked(port, ["/results"])[0][1])["results"][0]


def _address(result: Any, kind: str, level: int, column: int, row: int) -> str:
    what, ending = ("slide", "jpg") if kind == "slide" else ("map/1-2-3-4", "png")
    return f"/results/{result['id']}/{result['version']}/{what}/{level}/{column}/{row}.{ending}"


def _level(port: int, details: Any, kind: str, level: int, most: int) -> dict[str, Any]:
    """Times of a level's tiles: asked for the first time, again, and several at once by connections of their own."""
    levels = details[kind]["levels"]
    factor = 2 ** (levels["max_level"] - level)
    count = math.ceil(math.ceil(levels["width"] / factor) / details["tile"])
    places = [(column, row) for column in range(count) for row in range(count)]
    chosen = random.Random(SEED).sample(places, min(most, len(places)))
    addresses = [_address(details, kind, level, *place) for place in chosen]
    before = _asked(port, addresses)
    again = _asked(port, addresses * math.ceil(LEAST / len(addresses)))
    shares = [share for share in (addresses[number::TOGETHER] for number in range(TOGETHER)) if share]
    started = time.perf_counter()
    with ThreadPoolExecutor(len(shares)) as pool:
        together = [answer for answers in pool.map(lambda share: _asked(port, share), shares) for answer in answers]
    seconds = time.perf_counter() - started
    return {
        "kind": kind,
        "um_per_pixel": MPP * factor * (2 if kind == "map" else 1),
        "tiles": len(addresses),
        "first_ms": [milliseconds for milliseconds, _ in before],
        "again_ms": [milliseconds for milliseconds, _ in again],
        "together_ms": [milliseconds for milliseconds, _ in together],
        "together_per_second": len(addresses) / seconds,
        "kilobytes": statistics.mean(len(content) for _, content in before) / 1000,
    }


def _asked(port: int, addresses: list[str]) -> list[tuple[float, bytes]]:
    """Milliseconds and content of each, one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.connect()
    answers = []
    for address in addresses:
        started = time.perf_counter()
        connection.request("GET", address)
        answer = connection.getresponse()
        content = answer.read()
        answers.append(((time.perf_counter() - started) * 1000, content))
        assert answer.status == 200, content
    connection.close()
    return answers


def _publish(rows: list[dict[str, Any]], first: dict[str, list[float]], options: dict[str, Any], output: str) -> None:
    shown: list[list[Any]] = [
        ["tiles of", "um per pixel", "tiles", "first time, ms", "again, ms", f"{TOGETHER} at once, ms", "tiles/s", "kB"]
    ]
    for row in rows:
        shown.append([
            row["kind"], f"{row['um_per_pixel']:g}", row["tiles"], spread(row["first_ms"]), spread(row["again_ms"]),
            spread(row["together_ms"]), f"{row['together_per_second']:.0f}", f"{row['kilobytes']:.0f}",
        ])  # fmt: skip
    medians = [statistics.median(row[name]) for row in rows for name in ("first_ms", "again_ms")]
    side = options["side"]
    lines = [
        "# How soon a tile is there",
        "",
        f"`lightmuseg view` with a slide of {side:,} x {side:,} real BCSS pixels, JPEG, and a map of half as many a "
        f"side. Tiles of 512 x 512, {options['tiles']} of a",
        f"level by chance, asked over HTTP from the same computer. {processor()}; load average before "
        f"{options['load average before']:.1f}: what other",
        "programs did is in the figures. Median (least to most). Made by `scripts/benchmark/view.py`.",
        "",
        table(shown),
        "",
        "'First time': the slide is open, the tile was not asked for before. "
        f"'{TOGETHER} at once': as many connections ask, each for one tile",
        "after the other, so a tile waits for others. The server keeps no tiles, a browser does.",
        f"The slowest of the medians of one connection is {max(medians):.1f} ms; the aim was 50 ms.",
        "",
        f"The first tile after the server's start, which opens the file: slide {spread(first['slide'])} ms, map "
        f"{spread(first['map'])} ms ({options['starts']} starts; the file is in the",
        "system's memory).",
    ]
    publish("view", "\n".join(lines), {**options, "rows": rows, "first tile after start, ms": first}, output)


if __name__ == "__main__":
    fire.Fire(benchmark)
