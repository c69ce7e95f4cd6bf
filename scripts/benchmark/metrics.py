"""Time the package's metrics against PyPI's pysodmetrics: python scripts/benchmark/metrics.py [ROUNDS [MAPS]].

Both measure the same 512x512 maps in turn, ours as one batch. The masks are real ones where LIGHTMUSEG_DATA names the
folder of BCSS regions, else discs; the probabilities are blurred masks with noise. Prints a Markdown table.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import py_sod_metrics
import torch
from PIL import Image

from lightmuseg.metrics import EnhancedAlignmentMeasure, MeanAbsoluteError, StructureMeasure, WeightedFMeasure

SIDE = 512
PAIRS = [
    (StructureMeasure, py_sod_metrics.Smeasure),
    (EnhancedAlignmentMeasure, py_sod_metrics.Emeasure),
    (WeightedFMeasure, py_sod_metrics.WeightedFmeasure),
    (MeanAbsoluteError, py_sod_metrics.MAE),
]


def real_masks(folder: Path, maps: int) -> list[np.ndarray]:
    """Tiles of BCSS tumor masks that hold both tumor and other tissue."""
    tiles = []
    for path in sorted(folder.glob("*.png")):
        mask = np.asarray(Image.open(path)) > 0
        corners = np.ndindex(mask.shape[0] // SIDE, mask.shape[1] // SIDE)
        regions = [mask[r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE] for r, c in corners]
        tiles += [region for region in regions if 0.05 < region.mean() < 0.95]
    if len(tiles) < maps:
        sys.exit(f"{folder}: only {len(tiles)} tiles with tumor and other tissue, {maps} asked for; give fewer MAPS.")
    return tiles[:maps]


def discs(maps: int) -> list[np.ndarray]:
    """One disc a mask, of other sizes and places."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    places = [(*rng.integers(100, 400, 2), rng.integers(40, 160)) for _ in range(maps)]
    return [(rows - y) ** 2 + (columns - x) ** 2 < radius**2 for y, x, radius in places]


def predict(mask: torch.Tensor) -> torch.Tensor:
    """Probabilities like a network's for masks [B, 1, H, W]."""
    blurred = torch.nn.functional.avg_pool2d(mask, 31, 1, 15, count_include_pad=False).roll((5, -9), (2, 3))
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    return (8 * blurred - 4 + 0.5 * noise).sigmoid()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def benchmark(rounds: int, maps: int) -> None:
    """Print milliseconds a map: medians, the middle half of the rounds, and the ratio of the medians."""
    data = os.environ.get("LIGHTMUSEG_DATA")
    masks = real_masks(Path(data) / "bcss" / "tumor_masks", maps) if data else discs(maps)
    truth = torch.from_numpy(np.stack(masks)).float()[:, None]
    probability = predict(truth)
    images = list(zip(probability[:, 0].numpy(), masks))

    kind = "BCSS tumor masks" if data else "discs"
    print(f"{maps} maps of {SIDE}x{SIDE} ({kind}), {rounds} rounds, {torch.get_num_threads()} threads\n")
    print("| metric | ours, ms a map | pysodmetrics, ms a map | times faster |\n|---|---|---|---|")
    for metric, reference in PAIRS:

        def ours(metric: type = metric) -> None:
            metric()(probability, truth)

        def theirs(reference: type = reference) -> None:
            measure = reference()
            for image in images:
                measure.step(*image, normalize=False)

        ours()
        theirs()
        times = np.array([(seconds(ours), seconds(theirs)) for _ in range(rounds)]) * 1000 / maps
        low, middle, high = np.percentile(times, [25, 50, 75], axis=0)
        cells = [f"{m:.2f} ({a:.2f} to {b:.2f})" for a, m, b in zip(low, middle, high)]
        print(f"| {metric.__name__} | {cells[0]} | {cells[1]} | {middle[1] / middle[0]:.1f} |")


if __name__ == "__main__":
    if len(sys.argv) > 3 or not all(argument.isdecimal() and int(argument) > 0 for argument in sys.argv[1:]):
        sys.exit(__doc__)
    given = [int(argument) for argument in sys.argv[1:]]
    benchmark(*given, *(15, 8)[len(given) :])
