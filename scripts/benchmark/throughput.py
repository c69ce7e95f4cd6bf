"""How many slides a day a machine or a cluster makes, from what one slide costs.

A cost has a part that is fixed, parts for each gigapixel of slide and each tile, and, of pictures that are never larger
than some size, one for the share of tissue. Slides a second are the least that any resource allows: each has what it
can do in a second, and what a slide takes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import nnls

# stages that overlap within a slide; all others are one thread's, one after the other
OVERLAPPING = ("reading", "network", "merging")
# What a stage's cost depends on: pictures have a largest size, and what works on tiles alone costs nothing else.
PARTS = {
    "planning": ("fixed", "per_gigapixel"),
    "reading": ("per_tile",),
    "network": ("per_tile",),
    "merging": ("per_gigapixel", "per_tile"),
    "maps": ("fixed", "per_gigapixel", "per_tile"),
    "pictures": ("fixed", "per_tissue"),
    # up to 32 places are looked at
    "checking": ("fixed",),
    "hashing": ("per_gigapixel", "per_tile"),
    "other": ("fixed", "per_gigapixel"),
}
DRIVERS = {"per_gigapixel": "gigapixels", "per_tile": "tiles", "per_tissue": "tissue"}
TILE = 512
DAY_S = 86_400


@dataclass(frozen=True)
class Slide:
    """What costs depend on.

    Attributes:
        gigapixels: of the whole slide.
        tiles: that hold tissue.
        tissue: share of the slide.
    """

    gigapixels: float
    tiles: float
    tissue: float


@dataclass(frozen=True)
class Cost:
    """What a stage takes of something: CPU-seconds or bytes."""

    fixed: float = 0.0
    per_gigapixel: float = 0.0
    per_tile: float = 0.0
    per_tissue: float = 0.0

    def of(self, slide: Slide) -> float:
        """What it takes for a slide."""
        return self.fixed + sum(getattr(self, part) * getattr(slide, driver) for part, driver in DRIVERS.items())


@dataclass(frozen=True)
class Costs:
    """What a slide takes, by stage.

    Attributes:
        cpu: CPU-seconds.
        read, written: bytes.
    """

    cpu: Mapping[str, Cost]
    read: Mapping[str, Cost]
    written: Mapping[str, Cost]

    def bytes_of(self, slide: Slide) -> float:
        """All that a slide reads and writes."""
        return sum(cost.of(slide) for kind in (self.read, self.written) for cost in kind.values())


@dataclass(frozen=True)
class Machine:
    """What a machine or a cluster has.

    Attributes:
        cores: of all processors.
        workers: processes, each at one slide.
        threads: that a worker reads with.
        gpus: that the network runs on; 0 for the processors.
        gpu_tiles: tiles a second that the network does on one of them.
        storage: bytes a second.
    """

    cores: float
    workers: int
    threads: int
    gpus: int = 0
    gpu_tiles: float = math.inf
    storage: float = math.inf


def fit(stage: str, slides: Sequence[Slide], values: Sequence[float]) -> Cost:
    """The cost of a stage by least relative squares, none of its parts negative."""
    if not any(values):
        return Cost()
    parts = PARTS[stage]
    rows = np.array([[getattr(slide, DRIVERS[part]) if part in DRIVERS else 1 for part in parts] for slide in slides])
    # what is next to nothing does not count for more than the rest
    weights = 1 / np.maximum(np.array(values, float), 1e-3 * max(values))
    scale = rows.max(axis=0)
    found, _ = nnls(rows / scale * weights[:, None], np.array(values) * weights)
    return Cost(**dict(zip(parts, (found / scale).tolist())))


def seconds_of_a_slide(costs: Costs, machine: Machine, slide: Slide) -> float:
    """What a slide takes in one worker that has its share of the cores, and a GPU to itself when it needs one."""
    cpu = _cpu(costs, machine, slide)
    share = machine.cores / machine.workers
    at_once = max(
        cpu["reading"] / min(machine.threads, share),
        cpu["merging"] / min(1, share),
        sum(cpu[stage] for stage in OVERLAPPING) / share,
        slide.tiles / machine.gpu_tiles if machine.gpus else 0,
    )
    return at_once + sum(seconds for stage, seconds in cpu.items() if stage not in OVERLAPPING) / min(1, share)


def slides_a_second(costs: Costs, machine: Machine, slide: Slide) -> dict[str, float]:
    """What each resource allows; the least is what comes out.

    ``GPUs`` run the network; ``cores`` share the rest, and the network where there is no GPU; ``workers`` do one slide
    after the other; ``storage`` moves bytes.
    """
    return {
        "GPUs": machine.gpus * machine.gpu_tiles / slide.tiles if machine.gpus else math.inf,
        "cores": machine.cores / sum(_cpu(costs, machine, slide).values()),
        "workers": machine.workers / seconds_of_a_slide(costs, machine, slide),
        "storage": machine.storage / costs.bytes_of(slide),
    }


def bottleneck(costs: Costs, machine: Machine, slide: Slide) -> tuple[str, float]:
    """The resource that allows least, and the slides a second that it allows."""
    rates = slides_a_second(costs, machine, slide)
    name = min(rates, key=lambda one: rates[one])
    return name, rates[name]


def needed(costs: Costs, slide: Slide, slides_a_day: float, gpu_tiles: float) -> dict[str, float]:
    """What so many slides a day take, with nothing to spare: tiles a second, GPUs, cores, workers, bytes a second.

    Each worker has a core.
    """
    rate = slides_a_day / DAY_S
    one = Machine(cores=1, workers=1, threads=1, gpus=1, gpu_tiles=gpu_tiles)
    return {
        "tiles": rate * slide.tiles,
        "GPUs": rate * slide.tiles / gpu_tiles,
        "cores": rate * sum(_cpu(costs, one, slide).values()),
        "workers": rate * seconds_of_a_slide(costs, one, slide),
        "storage": rate * costs.bytes_of(slide),
    }


def _cpu(costs: Costs, machine: Machine, slide: Slide) -> dict[str, float]:
    """CPU-seconds of each stage; none of the network's where a GPU runs it."""
    cpu = {stage: cost.of(slide) for stage, cost in costs.cpu.items()}
    return {**cpu, "network": 0.0} if machine.gpus else cpu


def slide_of(side: int, tissue: float, overlap: float, blobs: int = 9, margin: float = 0.0) -> Slide:
    """A square slide whose tissue is round blobs of one size.

    A tile of side w is taken where it touches a blob, so the corners of the tiles that are taken fill the blob grown by
    the tile, of area pi r^2 + 4 r w + w^2 (Steiner's formula), of which each step holds one.

    Args:
        side: pixels at the model's scale.
        tissue: share of the slide, 0 to 1.
        overlap: of the tiles.
        blobs: of tissue.
        margin: pixels by which the tissue mask is larger than the tissue.
    """
    step = TILE * (1 - overlap)
    radius = side * math.sqrt(tissue / (blobs * math.pi)) + margin
    touched = math.pi * radius**2 + 4 * radius * TILE + TILE**2
    all_tiles = (math.ceil(max(0, side - TILE) / step) + 1) ** 2
    return Slide(side**2 / 1e9, min(all_tiles, blobs * touched / step**2), tissue)


def costs_of(values: Mapping[str, Any]) -> Costs:
    """Costs of the plain values that ``dataclasses.asdict`` makes of them."""
    return Costs(**{
        kind: {stage: Cost(**cost) for stage, cost in stages.items()} for kind, stages in values.items()
    })  # fmt: skip
