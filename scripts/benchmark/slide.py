"""One slide from file to finished map, by several engines: python scripts/benchmark/slide.py SOURCE MODEL [OPTIONS].

A slide of real pixels is made from SOURCE, an image or a folder of images. Time counts from the loaded libraries to the
map on disk. TIAToolbox and LazySlide get environments of their own in --environments, made where they are not there.
Writes docs/benchmarks/slide.*.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import figures
import fire
import numpy as np
import tifffile
import torch
from network import TILE, network_of

from lightmuseg.runtimes import NormalisedNetwork

OVERLAP = 0.25
OURS, MONAI = "LightMuSeg", "MONAI: WSIReader, SlidingWindowInferer"
FLOAT32, BFLOAT16, WHOLE = {"runtime": "openvino"}, {"runtime": "openvino_bf16"}, {"tissue_mask": False}
# script, environment's package, options
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    OURS: ("with_lightmuseg", "", FLOAT32),
    "LightMuSeg, bfloat16": ("with_lightmuseg", "", BFLOAT16),
    "LightMuSeg, INT8": ("with_lightmuseg", "", {"runtime": "openvino_int8"}),
    "LightMuSeg, PyTorch": ("with_lightmuseg", "", {"runtime": "torch"}),
    "LightMuSeg, all of the slide": ("with_lightmuseg", "", FLOAT32 | WHOLE),
    "LightMuSeg, bfloat16, all of the slide": ("with_lightmuseg", "", BFLOAT16 | WHOLE),
    MONAI: ("with_monai", "", {}),
    "LazySlide": ("with_lazyslide", "lazyslide", {}),
    "TIAToolbox": ("with_tiatoolbox", "tiatoolbox", {}),
}
# TIAToolbox names the PyTorch that it takes, which is older than ours
NEEDED = {"lazyslide": ["lazyslide", f"torch=={torch.__version__.split('+')[0]}"], "tiatoolbox": ["tiatoolbox>=2.1"]}


def benchmark(
    source: str, model: str, environments: str = "", side: int = 20_000, tissue: float = 0.3, rounds: int = 3,
    ways: str = "", output: str = str(figures.DOCS),
) -> None:  # fmt: skip
    """Time every engine in turns.

    Args:
        source: an image of tissue or a folder of such.
        model: weights; INT8 is what 'lightmuseg quantize' made beside them.
        environments: folder of the other engines' environments; without it they are left out.
        side: of the slide in pixels.
        tissue: share of the slide that is tissue.
        rounds: of all engines.
        ways: names of those to time, with semicolons between; else all.
        output: folder of the figures.
    """
    maps: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary:
        slide, scripted = Path(temporary) / "slide.tif", Path(temporary) / "network.ts"
        figures.make_slide(slide, source, side, tissue)
        example = torch.zeros(4, TILE, TILE, 3, dtype=torch.uint8)
        with torch.inference_mode():
            torch.jit.trace(NormalisedNetwork(network_of(model)).eval(), example, check_trace=False).save(scripted)

        def measure(way: str) -> figures.Row:
            script, package, options = WAYS[way]
            python = _environment(Path(environments), package) if package else Path(sys.executable)
            weights = scripted if package else Path(model).absolute()
            target = Path(temporary) / "output"
            words = [
                figures.ENGINES / f"{script}.py",
                slide,
                weights,
                target,
                json.dumps({"overlap": OVERLAP, **options}),
            ]
            try:
                facts = figures.measured(*words, python=python)
                made = facts.pop("map")
                if way not in maps and (way == MONAI or options.items() >= WHOLE.items()):
                    maps[way] = tifffile.imread(made, level=0)
            finally:
                shutil.rmtree(target, ignore_errors=True)
            return facts

        names = figures.chosen(ways, [way for way in WAYS if environments or not WAYS[way][1]])
        rows = figures.in_turns({way: partial(measure, way) for way in names}, rounds)
    options = {"side": side, "tissue": tissue, "overlap": OVERLAP, "rounds": rounds}
    figures.publish("slide", tables, rows, options, output, model, **{"same class as MONAI": _agreement(maps)})


def _environment(folder: Path, package: str) -> Path:
    """The interpreter of an environment with this package, made where it is not there."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        figures.run("-m", "venv", folder / package)
        figures.run("-m", "pip", "install", *NEEDED[package], python=python)
    return python


def _agreement(maps: dict[str, np.ndarray]) -> dict[str, float]:
    """Of each of our ways, the share of pixels with the same class as in MONAI's map; nothing where that is missing."""
    theirs = maps.pop(MONAI, None)
    if theirs is None:
        return {}
    height, width = (min(sizes) for sizes in zip(theirs.shape, *(ours.shape for ours in maps.values())))
    return {way: float((ours[:height, :width] == theirs[:height, :width]).mean()) for way, ours in maps.items()}


def tables(session: figures.Row) -> list[str]:
    """Markdown of a session."""
    ways = figures.by_way(session["rows"])
    rows = [["engine", "seconds", "times ours", "CPU share, %", "peak memory, MiB", "tiles"]]
    stages = [["engine", "planning, s", "segmenting, s", "writing, s", "loading and proof, s"]]
    for way, runs in ways.items():
        times = figures.spread(figures.ratios(runs, ways.get(OURS, []), "seconds"), 2)
        share, peak = figures.column(runs, "CPU share", 0, 100), max(run["peak MiB"] for run in runs)
        rows.append([way, figures.column(runs, "seconds"), times, share, peak, runs[0].get("tiles", "")])
        if "stages s" in runs[0]:
            known = [{**run["stages s"], "loading": run["seconds"] - sum(run["stages s"].values())} for run in runs]
            names = ("planning", "segmenting", "writing", "loading")
            stages.append([way, *(figures.column(known, name) for name in names)])
    alike = [f"{way}: {share:.5%}" for way, share in session["same class as MONAI"].items()]
    same = [f"Pixels with the same class as in MONAI's map: {', '.join(alike)}."] if alike else []
    return [figures.table(rows), figures.table(stages), *same]


if __name__ == "__main__":
    fire.Fire(benchmark)
