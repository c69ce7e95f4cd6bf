"""Time the slide engine with a network that costs nothing: python scripts/benchmark/engine.py SOURCE [OPTIONS].

Slides of real pixels are made by scripts/make_pyramid.py from SOURCE, an image or a folder of images; each run is a
process of its own. "engine" is from the first tile read to the last row stored, "whole" from opening the slide to the
folder of results. Tiles are 512x512, and are normalised as for a network. Prints a Markdown table.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import fire
import torch
from engines.free import Free

from lightmuseg.runtimes import TorchRuntime
from lightmuseg.slides import Options, SlideSegmenter

ROOT = Path(__file__).parents[2]


def run(slide: str, output: str, overlap: float, workers: int, tissue_mask: bool, backend: str) -> None:
    """Segment a slide and print the figures as JSON."""
    torch.set_num_threads(1)
    options = Options(
        output_dir=Path(output), class_names=("tumor",), overlap=overlap, batch_size=16, workers=workers,
        tissue_mask=tissue_mask, backend=backend,
    )  # fmt: skip
    segmenter = SlideSegmenter(TorchRuntime(Free()), options, {})
    started = time.perf_counter()
    (row,) = segmenter.run(slide)
    seconds = json.loads((Path(output) / Path(slide).stem / "run.json").read_text())["seconds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    whole = time.perf_counter() - started
    print(json.dumps({"tiles": row["tiles"], "engine": seconds["segmenting"], "whole": whole, "peak": peak}))


def benchmark(
    source: str,
    sides: str = "10000,40000",
    overlaps: str = "0.0,0.25",
    rounds: int = 3,
    tissue: float = 1.0,
    tissue_mask: bool = False,
    workers: int = os.cpu_count() or 1,
    backend: str = "auto",
    folder: str = "",
) -> None:
    """Print tiles a second and peak memory.

    Args:
        source: an image of tissue or a folder of such.
        sides: of the slides in pixels.
        overlaps: of the tiles.
        rounds: runs of each, in turn.
        tissue: share of the slides that is tissue.
        tissue_mask: segment tissue only.
        workers: threads that read.
        backend: what reads.
        folder: for the slides, which stay there; else they are made anew.
    """
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(folder or temporary)
        sizes = [int(side) for side in str(sides).strip("()[]").replace(" ", "").split(",")]
        shares = [float(overlap) for overlap in str(overlaps).strip("()[]").replace(" ", "").split(",")]
        slides = {side: _slide(place / f"{side}_{tissue}.tif", source, side, tissue) for side in sizes}
        figures: dict[tuple[int, float], list[dict]] = {(side, share): [] for side in sizes for share in shares}
        for number in range(rounds):
            for (side, share), runs in figures.items():
                output = Path(temporary) / f"{number}-{side}-{share}"
                words = [slides[side], output, share, workers, tissue_mask, backend]
                command = [sys.executable, "-W", "ignore", __file__, "run", *map(str, words)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                runs.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{rounds} rounds, tissue {tissue:g}, {os.cpu_count()} processors, {workers} readers, backend {backend}\n")
    print(
        "| pixels | overlap | tiles | engine, tiles/s | whole, tiles/s | peak memory, MiB |\n|---|---|---|---|---|---|"
    )
    for (side, share), runs in figures.items():
        rates = [_spread([one["tiles"] / one[stage] for one in runs]) for stage in ("engine", "whole")]
        peak = max(one["peak"] for one in runs)
        print(f"| {side} x {side} | {share:g} | {runs[0]['tiles']} | {rates[0]} | {rates[1]} | {peak} |")


def _slide(path: Path, source: str, side: int, tissue: float) -> Path:
    if not path.exists():
        words = ["--source", source, "--output", path, "--side", side, "--tissue", tissue]
        command = [sys.executable, "-W", "ignore", ROOT / "scripts" / "make_pyramid.py", *words]
        subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    return path


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"]:
        slide, output, overlap, workers, tissue_mask, backend = sys.argv[2:]
        run(slide, output, float(overlap), int(workers), tissue_mask == "True", backend)
    else:
        fire.Fire(benchmark)
