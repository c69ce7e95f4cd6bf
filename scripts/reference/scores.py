"""How well classes and probabilities agree with an annotation, as sums that can be added up over pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lightmuseg.classes import IGNORED
from lightmuseg.data.tiles import even_tile_starts

BINS, TILE = 15, 512


def counts_of(classes: np.ndarray, labels: np.ndarray, index: int) -> list[int]:
    """Pixels of a class that are found rightly, found wrongly and missed, where the label [H, W] is not 255."""
    found, true = (classes == index) & (labels != IGNORED), labels == index
    both = int(np.count_nonzero(found & true))
    return [both, int(np.count_nonzero(found)) - both, int(np.count_nonzero(true)) - both]


def dice(counts: Sequence[int]) -> float:
    """2 TP / (2 TP + FP + FN); 1 where there is nothing and nothing is found, as in the paper's protocol."""
    both, wrong, missed = counts
    return 2 * both / (2 * both + wrong + missed) if any(counts) else 1.0


def places(shape: Sequence[int], side: int) -> Iterable[tuple[slice, slice]]:
    """Rows and columns of the fewest squares that cover a picture, as a prepared dataset's tiles lie."""
    rows, columns = (even_tile_starts(length, side) for length in shape[:2])
    return ((slice(y, y + side), slice(x, x + side)) for y, x in itertools.product(rows, columns))


def mean_tile_dice(classes: np.ndarray, labels: np.ndarray, index: int) -> float:
    """Mean over tiles of 512 pixels of the picture, of those that have annotated pixels."""
    tiles = [(classes[place], labels[place]) for place in places(labels.shape, TILE)]
    return float(np.mean([dice(counts_of(*tile, index)) for tile in tiles if (tile[1] != IGNORED).any()]))


def reliability(levels: np.ndarray, hits: np.ndarray) -> dict[str, Any]:
    """What calibration is computed of.

    Args:
        levels: probabilities uint8 [N], 255 for 1.
        hits: bool [N], whether that came true.

    Returns:
        ``bins``: of 15 of equal width the pixels, the sum of their probabilities and the hits; ``squares``: the sum of
        squared differences.
    """
    pixels, true = (np.bincount(values, minlength=256).astype(float) for values in (levels, levels[hits]))
    value = np.arange(256) / 255
    # 255 is in the last bin, not in one of its own
    starts = np.searchsorted(np.arange(256) * BINS // 255, np.arange(BINS))
    sums = [np.add.reduceat(array, starts) for array in (pixels, pixels * value, true)]
    squares = (true * (1 - value) ** 2 + (pixels - true) * value**2).sum()
    return {"bins": [[int(n), round(p, 3), int(h)] for n, p, h in zip(*sums)], "squares": round(float(squares), 3)}


def expected_calibration_error(bins: Sequence[Sequence[float]]) -> float:
    """Sum over bins of the share of pixels in it, times the distance of mean probability and share of hits.

    References:
        Naeini et al., Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015; Guo et al., On
        calibration of modern neural networks, ICML 2017.
    """
    total = sum(n for n, _, _ in bins)
    return sum(abs(p - hits) for _, p, hits in bins) / total if total else math.nan


def brier(kept: dict[str, Any]) -> float:
    """Mean squared difference of probability and outcome (Brier, Monthly Weather Review 78:1, 1950)."""
    total = sum(n for n, _, _ in kept["bins"])
    return kept["squares"] / total if total else math.nan
