"""Time the package's metrics against PyPI's pysodmetrics: python scripts/benchmark/metrics.py MASKS [OPTIONS].

Both measure the same 512x512 maps of tumor in turn, ours as one batch. MASKS is a folder of BCSS's masks; the
probabilities are blurred masks with noise. Writes docs/benchmarks/metrics.*.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import fire
import numpy as np
import py_sod_metrics
import torch
from figures import DOCS, Row, publish, seconds_of, spread, table
from PIL import Image

from lightmuseg.metrics import EnhancedAlignmentMeasure, MeanAbsoluteError, StructureMeasure, WeightedFMeasure

SIDE = 512
PAIRS = [
    (StructureMeasure, py_sod_metrics.Smeasure),
    (EnhancedAlignmentMeasure, py_sod_metrics.Emeasure),
    (WeightedFMeasure, py_sod_metrics.WeightedFmeasure),
    (MeanAbsoluteError, py_sod_metrics.MAE),
]
OURS, THEIRS = "ours, ms a map", "pysodmetrics, ms a map"


def tumor_masks(folder: str, maps: int) -> np.ndarray:
    """Tiles of BCSS masks that hold both tumor and other tissue, bool [maps, 512, 512]."""
    tiles: list[np.ndarray] = []
    for path in sorted(Path(folder).glob("*.png")):
        # BCSS's code of tumor, or masks of tumor alone
        mask = np.isin(np.asarray(Image.open(path)), (1, 255))
        corners = np.ndindex(mask.shape[0] // SIDE, mask.shape[1] // SIDE)
        cut = [mask[r * SIDE : (r + 1) * SIDE, c * SIDE : (c + 1) * SIDE] for r, c in corners]
        tiles += [tile for tile in cut if 0.05 < tile.mean() < 0.95]
    if len(tiles) < maps:
        sys.exit(f"{folder}: has {len(tiles)} tiles with tumor and other tissue, not {maps}; give fewer --maps.")
    return np.stack(tiles[:maps])


def predict(mask: torch.Tensor) -> torch.Tensor:
    """Probabilities like a network's for masks [B, 1, H, W]."""
    blurred = torch.nn.functional.avg_pool2d(mask, 31, 1, 15, count_include_pad=False).roll((5, -9), (2, 3))
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    return (8 * blurred - 4 + 0.5 * noise).sigmoid()


def _compared(metric: type, reference: type, probability: torch.Tensor, truth: torch.Tensor, rounds: int) -> Row:
    images = list(zip(probability[:, 0].numpy(), truth[:, 0].numpy() > 0))

    def ours() -> None:
        metric()(probability, truth)

    def theirs() -> None:
        measure: Any = reference()
        for image in images:
            measure.step(*image, normalize=False)

    ours()
    theirs()
    times = [[1000 * seconds_of(call) / len(truth) for call in (ours, theirs)] for _ in range(rounds)]
    return {"metric": metric.__name__, **dict(zip((OURS, THEIRS), map(list, zip(*times))))}


def tables(session: Row) -> list[str]:
    """Markdown of a session."""
    lines = [["metric", OURS, THEIRS, "times faster"]]
    for row in session["rows"]:
        times = [theirs / ours for ours, theirs in zip(row[OURS], row[THEIRS])]
        lines.append([row["metric"], spread(row[OURS], 2), spread(row[THEIRS], 2), spread(times)])
    return [table(lines)]


def benchmark(masks: str, rounds: int = 20, maps: int = 8, output: str = str(DOCS)) -> None:
    """Time every metric in turns.

    Args:
        masks: folder of BCSS's masks.
        rounds: of both.
        maps: measured at once.
        output: folder of the figures.
    """
    truth = torch.from_numpy(tumor_masks(masks, maps)).float()[:, None]
    probability = predict(truth)
    rows = [_compared(*pair, probability, truth, rounds) for pair in PAIRS]
    options = {"maps": maps, "rounds": rounds, "threads": torch.get_num_threads()}
    options["pysodmetrics"] = metadata.version("pysodmetrics")
    publish("metrics", tables, rows, options, output)


if __name__ == "__main__":
    fire.Fire(benchmark)
