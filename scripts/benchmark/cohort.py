"""What Ray adds to the time of a cohort: python scripts/benchmark/cohort.py SOURCE [OPTIONS].

The same slides, cut from SOURCE, by one worker in the process of the command and by one worker on Ray, in turns, each
run a process of its own. The time is from the first slide to the last; what starting costs stands apart. Writes
docs/benchmarks/cohort.*.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fire
import numpy as np
import tifffile
from figures import DOCS, processor, publish, spread, table

from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.images import read_rgb

ROOT = Path(__file__).parents[2]
WAYS = {"local": "in the command's process", "ray": "Ray, one node"}


def cut(source: Path, folder: Path, count: int, side: int) -> None:
    """Slides of about ``side`` pixels square, in places that are the same each time."""
    paths = [source] if source.is_file() else sorted(source.glob("*.png"))
    regions, rng = [read_rgb(path) for path in paths], np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        region = regions[number % len(regions)]
        height, width = (min(side + int(rng.integers(-side // 10, side // 10)), size) for size in region.shape[:2])
        y, x = (int(rng.integers(0, size - part + 1)) for size, part in zip(region.shape[:2], (height, width)))
        tifffile.imwrite(
            folder / f"{number:03d}.tif", region[y : y + height, x : x + width], tile=(256, 256), photometric="rgb",
            compression="deflate", resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
        )  # fmt: skip


def measure(way: str, slides: str, model: str, output: str) -> None:
    """Print what one run took as JSON."""
    from lightmuseg.cohort import segment_cohort

    values = {"checkpoint": Path(model), "tissue_mask": False}
    run = segment_cohort([slides], Path(output), ROOT / "bundle", None, values, way, slides_at_once=1)
    print(json.dumps(dataclasses.asdict(run)))


def benchmark(
    source: str, model: str = str(ROOT / "bundle" / "models" / "model.pt"), slides: int = 24, side: int = 2000,
    rounds: int = 3, output: str = str(DOCS), folder: str = "",
) -> None:  # fmt: skip
    """Measure in turns.

    Args:
        source: an image of tissue at 0.25 um/px, or a folder of PNG.
        model: weights.
        slides: number of slides.
        side: of a slide in pixels, a tenth more or less.
        rounds: runs of each way.
        output: folder of the figures.
        folder: for slides and results; else a temporary one.
    """
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
        cohort, results = Path(temporary) / "slides", Path(temporary) / "results"
        cut(Path(source), cohort, slides, side)
        for number in range(rounds):
            # who is first changes, because a machine warms up and its neighbours come and go
            for way in list(WAYS)[:: 1 if number % 2 == 0 else -1]:
                command = [sys.executable, "-W", "ignore", __file__, "measure", way, cohort, model, results]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr[-2000:])
                runs[way].append(json.loads(done.stdout.strip().splitlines()[-1]))
                print(f"{way}: {runs[way][-1]}", file=sys.stderr)
                shutil.rmtree(results)
    figures = {"ways": runs, "slides": slides, "side": side, "model_sha256": sha256_of(model)}
    publish("cohort", _text(runs, slides, side, rounds), figures, output)


def _text(runs: dict[str, list[dict[str, Any]]], slides: int, side: int, rounds: int) -> str:
    added = [100 * (ray["slides_s"] / local["slides_s"] - 1) for ray, local in zip(runs["ray"], runs["local"])]
    medians = {way: statistics.median(one["slides_s"] for one in some) for way, some in runs.items()}
    rows = [["one worker", "slides, s", "s a slide", "until the first slide, s"]]
    for way, some in runs.items():
        seconds = [one["slides_s"] for one in some]
        starts = spread([one["start_s"] for one in some])
        rows.append([WAYS[way], spread(seconds), spread([one / slides for one in seconds], 2), starts])
    return "\n".join([
        "# What Ray adds",
        "",
        f"{slides} slides of about {side} x {side} real pixels, the trained network, no tissue mask; {rounds} rounds",
        "in turns, each run a process of its own. Median (least to most).",
        f"{processor()}. Made by `scripts/benchmark/cohort.py`.",
        "",
        table(rows),
        "",
        f"Ray adds {100 * (medians['ray'] / medians['local'] - 1):.1f}% to the time of the slides by the medians;",
        f"round by round {spread(added)}%. Starting takes the network's loading in both, and Ray's own start.",
    ])  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(*sys.argv[2:])
    else:
        fire.Fire(benchmark)
