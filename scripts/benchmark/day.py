"""A laboratory's morning: python scripts/benchmark/day.py SOURCE [OPTIONS].

Slides of several sizes and shares of tissue are made from SOURCE, an image or a folder of images, and one command
'lightmuseg segment' does all of them, from its start to the last folder of results. Writes docs/benchmarks/day.*.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fire
from figures import DOCS, Row, by_way, chosen, column, in_turns, make_slide, publish, run, seconds_of, spread, table

from lightmuseg.text_files import read_json

DAY_S, MPP = 86_400, 0.25
# mm of a side, share of tissue, and how many of 20; the first is what a laboratory's slide is taken to be
MIX = ((15.0, 0.3, 8), (10.0, 0.3, 4), (20.0, 0.2, 2), (7.5, 0.5, 3), (5.0, 0.6, 3))
WAYS = {"float32": "openvino", "bfloat16": "openvino_bf16", "INT8": "openvino_int8", "by default": ""}


def benchmark(
    source: str, real: str = "", model: str = "tumor", slides: int = 40, scale: float = 1.0, rounds: int = 1,
    ways: str = "", output: str = str(DOCS), folder: str = "",
) -> None:  # fmt: skip
    """Measure in turns.

    Args:
        source: an image of tissue or a folder of such.
        real: slides that are added, with semicolons between.
        model: a name of 'lightmuseg models', or weights.
        slides: how many are made.
        scale: of their sides.
        rounds: of all ways.
        ways: of float32, bfloat16, INT8 and by default, with semicolons between; else all.
        output: folder of the figures.
        folder: for the slides; else a temporary one.
    """
    if slides < 1:
        sys.exit(f"--slides {slides}: give 1 or more.")
    with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
        made = list(_slides(Path(temporary), source, slides, scale))
        paths = [*made, *(Path(path).absolute() for path in real.split(";") if path)]
        measure = {way: partial(_segmented, paths, model, WAYS[way], Path(temporary)) for way in chosen(ways, WAYS)}
        rows = in_turns(measure, rounds)
    publish("day", tables, rows, {"slides": len(paths), "scale": scale, "rounds": rounds}, output)


def _slides(folder: Path, source: str, count: int, scale: float) -> Iterator[Path]:
    """Slides of the mix, those of one kind as links to one file, in an order in which the kinds alternate."""
    shares = sum(share for *_, share in MIX)
    kinds = [number for number, (*_, share) in enumerate(MIX) for _ in range(-(-count * share // shares))]
    for index in range(count):
        # steps of the golden ratio spread what lies together
        number = kinds[int(index * 0.618034 * len(kinds)) % len(kinds)]
        mm, tissue, _ = MIX[number]
        whole = folder / f"kind-{number}.tif"
        if not whole.exists():
            make_slide(whole, source, round(scale * mm * 1000 / MPP), tissue)
        path = folder / f"{mm:g}-mm-{index}.tif"
        os.link(whole, path)
        yield path


def _segmented(paths: list[Path], model: str, runtime: str, folder: Path) -> Row:
    target = folder / "results"
    words: list[Any] = ["-m", "lightmuseg.cli", "segment", *paths, "--model", model, "--output", target]
    try:
        seconds = seconds_of(partial(run, *words, *(["--runtime", runtime] if runtime else [])))
        records = [read_json(path, "run it again") for path in sorted(target.glob("*/run.json"))]
    finally:
        shutil.rmtree(target, ignore_errors=True)
    stages = {stage: sum(record["seconds"][stage] for record in records) for stage in records[0]["seconds"]}
    common = [record for record in records if Path(record["slide"]).name.startswith(f"{MIX[0][0]:g}-mm-")]
    return {
        "seconds": seconds,
        "slides": len(records),
        "tiles": sum(record["tiles"] for record in records),
        "runtime": json.dumps({key: records[0]["model"][key] for key in ("runtime", "precision")}),
        "stages s": stages,
        "common tiles": statistics.mean(record["tiles"] for record in common),
        "common s": statistics.mean(sum(record["seconds"].values()) for record in common),
    }


def tables(session: Row) -> list[str]:
    """Markdown of a session."""
    mm, tissue, _ = MIX[0]
    common = f"of {session['options']['scale'] * mm:g} mm and {tissue:.0%} tissue"
    rows = [["precision", "slides", "tiles", "seconds", "slides a day", f"{common}: tiles", "seconds", "slides a day"]]
    stages = list(session["rows"][0]["stages s"])
    shares = [["precision", *(f"{stage}, %" for stage in stages), "start, and between slides, %"]]
    for way, runs in by_way(session["rows"]).items():
        days = [DAY_S * one["slides"] / one["seconds"] for one in runs], [DAY_S / one["common s"] for one in runs]
        rows.append([
            way, runs[0]["slides"], f"{runs[0]['tiles']:,}", column(runs, "seconds"), spread(days[0], 0),
            f"{runs[0]['common tiles']:,.0f}", column(runs, "common s"), spread(days[1], 0),
        ])  # fmt: skip
        parts = [{name: 100 * value / one["seconds"] for name, value in one["stages s"].items()} for one in runs]
        rest = [100 - sum(part.values()) for part in parts]
        shares.append([way, *(column(parts, stage) for stage in stages), spread(rest)])
    return [table(rows), table(shares)]


if __name__ == "__main__":
    fire.Fire(benchmark)
