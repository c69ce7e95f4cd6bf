"""One slide from file to finished map, by several engines: python scripts/benchmark/slide.py SOURCE MODEL [OPTIONS].

A slide of real pixels is made from SOURCE, an image or a folder of images, by scripts/make_pyramid.py. Every run is a
process of its own, the engines take turns, and time counts from the loaded libraries to the map on disk. TIAToolbox and
LazySlide get environments of their own in --environments, made where they are not there. Writes
docs/benchmarks/slide.*.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fire
import numpy as np
import tifffile
import torch
from figures import DOCS, processor, publish, spread, table
from network import TILE, network_of

from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import NormalisedNetwork

ROOT = Path(__file__).parents[2]
ENGINES = Path(__file__).parent / "engines"
OVERLAP = 0.25
BEST = "LightMuSeg"
MONAI = "MONAI: WSIReader, SlidingWindowInferer"
GLASS = {"tissue_mask": False}
# script, environment's package, options
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    BEST: ("with_lightmuseg", "", {}),
    "LightMuSeg, bfloat16": ("with_lightmuseg", "", {"runtime": "openvino_bf16"}),
    "LightMuSeg, INT8": ("with_lightmuseg", "", {"runtime": "openvino_int8"}),
    "LightMuSeg, PyTorch": ("with_lightmuseg", "", {"runtime": "torch"}),
    "LightMuSeg, all of the slide": ("with_lightmuseg", "", GLASS),
    "LightMuSeg, bfloat16, all of the slide": ("with_lightmuseg", "", {"runtime": "openvino_bf16", **GLASS}),
    MONAI: ("with_monai", "", {}),
    "LazySlide": ("with_lazyslide", "lazyslide", {}),
    "TIAToolbox": ("with_tiatoolbox", "tiatoolbox", {}),
}

# TIAToolbox names the PyTorch it takes, which is older than ours
NEEDED = {"lazyslide": ["lazyslide", f"torch=={torch.__version__.split('+')[0]}"], "tiatoolbox": ["tiatoolbox>=2.1"]}


def benchmark(
    source: str, model: str, environments: str = "", side: int = 20_000, tissue: float = 0.3, rounds: int = 3,
    ways: str = "", output: str = str(DOCS), name: str = "slide",
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
        name: of the figures' files.
    """
    chosen = {way: WAYS[way] for way in (ways.split(";") if ways else WAYS) if environments or not WAYS[way][1]}
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in chosen}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        slide, scripted = folder / "slide.tif", folder / "network.ts"
        words = ["--source", source, "--output", slide, "--side", side, "--tissue", tissue]
        _run([sys.executable, "-W", "ignore", ROOT / "scripts" / "make_pyramid.py", *words])
        example = torch.zeros(4, TILE, TILE, 3, dtype=torch.uint8)
        with torch.inference_mode():
            torch.jit.trace(NormalisedNetwork(network_of(model)).eval(), example, check_trace=False).save(scripted)
        maps: dict[str, np.ndarray] = {}
        for number in range(rounds):
            for way, (script, package, options) in chosen.items():
                if way not in runs:
                    continue
                python = _environment(Path(environments), package) if package else Path(sys.executable)
                target = folder / f"{number}-{list(chosen).index(way)}"
                weights = scripted if package else Path(model).absolute()
                values = {"overlap": OVERLAP, **options}
                words = [ENGINES / f"{script}.py", slide, weights, target, json.dumps(values)]
                done = _run([python, "-W", "ignore", *words], check=False)
                if done.returncode:
                    print(f"{way}: left out: {done.stderr[-2000:]}", file=sys.stderr)
                    del runs[way]
                    continue
                facts = json.loads(done.stdout.strip().splitlines()[-1])
                print(f"{way}: {facts}", file=sys.stderr)
                made = facts.pop("map")
                runs[way].append(facts)
                if (way == MONAI or options.get("tissue_mask") is False) and number == 0:
                    maps[way] = tifffile.imread(made, level=0)
                shutil.rmtree(target)
    same = _agreement(maps)
    _publish(name, runs, same, {"side": side, "tissue": tissue, "rounds": rounds, "model": model}, output)


def _run(words: list[Any], check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if check and done.returncode:
        sys.exit(done.stderr[-2000:])
    return done


def _environment(folder: Path, package: str) -> Path:
    """The interpreter of an environment with this package, made where it is not there."""
    python = folder / package / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", folder / package])
        _run([python, "-m", "pip", "install", *NEEDED[package]])
    return python


def _agreement(maps: dict[str, np.ndarray]) -> dict[str, float]:
    """Of each of our ways, the share of pixels with the same class as in MONAI's map; nothing where that is missing."""
    theirs = maps.pop(MONAI, None)
    if theirs is None:
        return {}
    height, width = (min(sizes) for sizes in zip(theirs.shape, *(ours.shape for ours in maps.values())))
    return {way: float((ours[:height, :width] == theirs[:height, :width]).mean()) for way, ours in maps.items()}


def _publish(
    name: str, runs: dict[str, list[dict[str, Any]]], same: dict[str, float], options: dict[str, Any], output: str
) -> None:
    rows = [["engine", "seconds", "times ours", "CPU share", "peak memory, MiB", "tiles", "network's share"]]
    reference = runs[BEST]
    for way, some in runs.items():
        ratios = [one["seconds"] / ours["seconds"] for one, ours in zip(some, reference)]
        shares = [100 * one["network s"] / one["seconds"] for one in some if "network s" in one]
        rows.append([
            way, spread([one["seconds"] for one in some]), spread(ratios, 2),
            spread([100 * one["CPU share"] for one in some], 0) + " %", max(one["peak MiB"] for one in some),
            some[0].get("tiles", ""), spread(shares, 0) + " %" if shares else "",
        ])  # fmt: skip
    stages = [["engine", "planning, s", "segmenting, s", "writing, s", "network, s", "loading and proof, s"]]
    for way, some in runs.items():
        if "stages s" not in some[0]:
            continue
        known = [{**one["stages s"], "network": one["network s"]} for one in some]
        for one, figures in zip(some, known):
            figures["rest"] = one["seconds"] - sum(one["stages s"].values())
        names = ("planning", "segmenting", "writing", "network", "rest")
        stages.append([way, *(spread([figures[stage] for figures in known]) for stage in names)])
    side, model = options["side"], options.pop("model")
    lines = [
        f"# One slide of {side:,} x {side:,}, {options['tissue']:.0%} tissue",
        "",
        f"Real BCSS pixels, JPEG, 0.25 um/px; tiles of 512 x 512, overlap {OVERLAP:g}, trained weights, "
        f"{options['rounds']} rounds in turns, each run",
        f"a process of its own. Median (least to most). {processor()}. Made by `scripts/benchmark/slide.py`.",
        "",
        table(rows),
        "",
        "\"Network's share\" is of all seconds, loading and writing among them. MONAI's parts have no tissue mask, so "
        "they are to be compared with",
        "our rows of the whole slide too. TIAToolbox and LazySlide run the eager network in PyTorch, as they run any.",
        "",
        table(stages),
    ]
    if same:
        alike = ", ".join(f"{way}: {share:.5%}" for way, share in same.items())
        lines += ["", f"Pixels with the same class as in MONAI's map: {alike}."]
    figures = {**options, "ways": runs, "same class as MONAI": same, "model_sha256": sha256_of(model)}
    publish(name, "\n".join(lines), figures, output)


if __name__ == "__main__":
    fire.Fire(benchmark)
