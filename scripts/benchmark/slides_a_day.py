"""How many slides a day a machine makes: python scripts/benchmark/slides_a_day.py [OPTIONS].

What a slide costs beside its network is taken from the figures of growth.py. The tiles a second of a GPU have to be
given; 'lightmuseg segment --runtime auto' prints them. Prints a Markdown table.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import fire
import numpy as np
from figures import DOCS, table

DAY_S, TILE, BLOBS = 86_400, 512, 9
# pixels by which the tissue mask is larger than the tissue
MARGIN = 128


@dataclass(frozen=True)
class Costs:
    """What a slide takes beside its network.

    Attributes:
        cpu_s: CPU-seconds a tile, all in all.
        tiles_a_second: that a worker with all cores reads, merges and stores.
        fixed_s, gigapixel_s: seconds of what comes before and after, planning and writing for the most part.
    """

    cpu_s: float
    tiles_a_second: float
    fixed_s: float
    gigapixel_s: float


def costs_of(session: dict[str, Any]) -> Costs:
    """Costs by the sizes of one session of growth.py, each size weighing the same."""
    rows = [row for row in session["rows"] if row["part"] == "size"]
    gigapixels = np.array([row["side"] ** 2 / 1e9 for row in rows])
    around = np.array([row["seconds"] - row["stages s"]["segmenting"] for row in rows])
    slope, fixed = np.polyfit(gigapixels, around, 1, w=1 / around)
    cpu = [row["seconds"] * row["CPU share"] * session["processors"] / row["tiles"] for row in rows]
    rates = [row["tiles"] / row["stages s"]["segmenting"] for row in rows]
    return Costs(float(np.median(cpu)), float(np.median(rates)), float(fixed), float(slope))


def tiles_of(side: int, tissue: float, overlap: float, margin: float = MARGIN) -> float:
    """Tiles of a square slide whose tissue is round blobs of one size.

    A tile of side w is taken where it touches a blob, so the corners of the tiles that are taken fill the blob grown by
    the tile, of area pi r^2 + 4 r w + w^2 (Steiner's formula), of which each step holds one.

    Args:
        side: pixels at the model's scale.
        tissue: share of the slide, 0 to 1.
        overlap: of the tiles.
        margin: pixels by which the tissue mask is larger than the tissue.
    """
    step = TILE * (1 - overlap)
    radius = side * math.sqrt(tissue / (BLOBS * math.pi)) + margin
    touched = math.pi * radius**2 + 4 * radius * TILE + TILE**2
    return min((math.ceil(max(0, side - TILE) / step) + 1) ** 2, BLOBS * touched / step**2)


def slides_a_day(
    costs: Costs, side: int, tiles: float, tiles_a_second: float, gpus: float, cores: float, workers: int
) -> dict[str, float]:
    """Slides a day that GPUs, cores and workers allow, each for itself."""
    network_s = tiles / min(tiles_a_second, costs.tiles_a_second)
    worker_s = network_s + costs.fixed_s + costs.gigapixel_s * side**2 / 1e9
    return {
        "GPUs": DAY_S * gpus * tiles_a_second / tiles,
        "cores": DAY_S * cores / (costs.cpu_s * tiles),
        "workers": DAY_S * workers / worker_s,
    }


def calculate(
    tiles_a_second: float = 500, gpus: float = 1, cores: float = 16, workers: int = 16, side: int = 80_000,
    tissue: float = 0.3, overlap: float = 0.125, session: int = 0,
) -> None:  # fmt: skip
    """Print what a machine makes.

    Args:
        tiles_a_second: of the network on one GPU.
        gpus: of the machine.
        cores: of the machine.
        workers: processes, each of which segments one slide at a time.
        side: of a slide in pixels at the model's scale.
        tissue: share of the slide.
        overlap: of the tiles.
        session: of docs/benchmarks/growth.json, counted from 0; one with several sizes.
    """
    measured = json.loads((DOCS / "growth.json").read_text(encoding="utf-8"))[session]
    tiles = tiles_of(side, tissue, overlap)
    allowed = slides_a_day(costs_of(measured), side, tiles, tiles_a_second, gpus, cores, workers)
    limit = min(allowed, key=lambda name: allowed[name])
    heading = ["tiles a slide", *(f"{name} allow" for name in allowed), "slides a day", "limit"]
    print(table([heading, [f"{tiles:,.0f}", *(f"{rate:,.0f}" for rate in (*allowed.values(), allowed[limit])), limit]]))


if __name__ == "__main__":
    fire.Fire(calculate)
