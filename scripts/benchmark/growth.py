"""How cost grows with size, tissue, batch and threads: python scripts/benchmark/growth.py SOURCE MODEL [OPTIONS].

Slides of real pixels are made from SOURCE, an image or a folder of images. Sizes are run with a network that costs
nothing, which shows reading, merging and writing, and the memory they take: a network's time is its tiles over its
rate. The others are run with the network. Writes docs/benchmarks/growth.*.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import fire
from figures import DOCS, ENGINES, Row, by_way, chosen, column, in_turns, make_slide, measured, publish, spread, table

TISSUE, FLOAT32 = 0.3, {"runtime": "openvino"}
# above which a size is run once
LARGE = 64_000


def benchmark(
    source: str, model: str, rounds: int = 3, sides: str = "32000;64000;128000;256000", parts: str = "",
    side: int = 10_000, output: str = str(DOCS), folder: str = "",
) -> None:  # fmt: skip
    """Measure in turns.

    Args:
        source: an image of tissue or a folder of such.
        model: weights.
        rounds: runs of each but the sizes above 4 gigapixels, which are run once.
        sides: pixels a side of the sizes, with semicolons between.
        parts: what to vary, of size, tissue, batch and threads, with semicolons between; else all.
        side: pixels of the slides where size is not varied.
        output: folder of the figures.
        folder: for the slides, which take 0.2 GB a gigapixel and are deleted one by one; else a temporary one.
    """
    cores = os.cpu_count() or 1
    # name: side, share of tissue, options, threads
    ways: dict[str, dict[str, tuple[int, float, Row, int]]] = {
        "size": {f"{int(n):,} px": (int(n), TISSUE, {"free": True}, cores) for n in str(sides).split(";")},
        "tissue": {f"{share:.0%} tissue": (side, share, FLOAT32, cores) for share in (0.05, 0.3, 0.6, 1.0)},
        "batch": {f"batches of {n}": (side, TISSUE, FLOAT32 | {"batch_size": n}, cores) for n in (1, 4, 16)},
        "threads": {f"{n} threads": (side, TISSUE, FLOAT32 | {"workers": n}, n) for n in range(1, cores + 1)},
    }
    rows = []
    for part in chosen(parts, ways):
        for way, (pixels, tissue, options, threads) in ways[part].items():
            with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
                make_slide(Path(temporary) / "slide.tif", source, pixels, tissue)
                measure = partial(_segmented, Path(temporary), Path(model).absolute(), options, threads)
                times = 1 if pixels > LARGE else rounds
                rows += [{"part": part, "side": pixels, **row} for row in in_turns({way: measure}, times)]
    publish("growth", tables, rows, {"rounds": rounds, "side": side}, output, model)


def _segmented(folder: Path, model: Path, options: Row, threads: int) -> Row:
    words = [folder / "slide.tif", model, folder / "output", json.dumps(options)]
    facts = measured(ENGINES / "with_lightmuseg.py", *words, threads=threads)
    shutil.rmtree(folder / "output")
    del facts["map"]
    return facts


def tables(session: Row) -> list[str]:
    """Markdown of a session."""
    found = []
    for part in dict.fromkeys(row["part"] for row in session["rows"]):
        lines = [[part, "tiles", "seconds", "segmenting, tiles/s", "writing, s", "CPU share, %", "peak memory, MiB"]]
        for way, runs in by_way(row for row in session["rows"] if row["part"] == part).items():
            stages = [run["stages s"] for run in runs]
            rates = [run["tiles"] / stage["segmenting"] for run, stage in zip(runs, stages)]
            lines.append([
                way, f"{runs[0]['tiles']:,}", column(runs, "seconds"), spread(rates), column(stages, "writing"),
                column(runs, "CPU share", 0, 100), max(run["peak MiB"] for run in runs),
            ])  # fmt: skip
        found.append(table(lines))
    return found


if __name__ == "__main__":
    fire.Fire(benchmark)
