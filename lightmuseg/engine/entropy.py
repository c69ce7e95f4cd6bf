"""How unsure the network is, as a small map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .rows import Rows

# Output pixels from one sample to the next, along both axes, and to one of the map: entropy of every pixel would cost
# more than all else of the map does, and 16 pixels are 8 um, a nucleus, at the resolution that maps have by default.
STEP, BLOCK = 4, 16
# Entropy in a byte: 0 to LEVELS; on glass, and where nothing was analysed or read, it is UNKNOWN.
LEVELS, UNKNOWN = 254, 255
# Rows of blocks that are averaged at once.
BAND = 64


def predictive_entropy(probabilities: np.ndarray, axis: int = 0) -> np.ndarray:
    """The entropy of each pixel's class, as a share of the most it can be.

    Args:
        probabilities: float, such as [C, H, W]; with C = 1 the probability of one class against its absence (sigmoid),
            else those of C classes that sum to 1 (softmax).
        axis: of the classes.

    Returns:
        The same without that axis, from 0 (certain) to 1 (all classes alike): bits over log2 of the number of classes.

    Example:
        >>> predictive_entropy(np.array([0.0, 0.5, 1.0]).reshape(1, 1, 3))
        array([[0., 1., 0.]])

    Reference:
        Shannon, A mathematical theory of communication, Bell System Technical Journal 27, 1948.
    """
    if probabilities.shape[axis] == 1:
        probabilities = np.concatenate([probabilities, 1 - probabilities], axis=axis)
    # p log p is 0 at p = 0
    logarithms = np.log(np.where(probabilities > 0, probabilities, 1))
    # no -0.0 for what is certain
    return np.abs((probabilities * logarithms).sum(axis=axis)) / math.log(probabilities.shape[axis])


def samples_before(end: int) -> int:
    """How many of the output pixels 0, STEP, 2 STEP ... lie before ``end``."""
    return -(-end // STEP)


def entropy_levels(probabilities: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Entropy of samples as uint8 [h, w], 254 the greatest; 255 where bool [h, w] ``known`` is not."""
    levels = np.rint(LEVELS * predictive_entropy(probabilities)).astype(np.uint8)
    return np.where(known, levels, np.uint8(UNKNOWN))


@dataclass
class Entropies:
    """Entropy of the samples of each class, gathered block by block; kept and brought back as ``Counts`` are.

    Attributes:
        sums: by index, from 0 (other tissue), in levels of 1 / 254.
        samples: how many there were.
    """

    sums: list[int]
    samples: list[int]

    @classmethod
    def of(cls, class_names: Sequence[str]) -> Entropies:
        """Nothing gathered yet of these classes."""
        return cls([0] * (len(class_names) + 1), [0] * (len(class_names) + 1))

    def add(self, classes: np.ndarray, levels: np.ndarray) -> None:
        """Gather a block's samples: class indices and levels of entropy, both uint8 [h, w]."""
        for index in range(len(self.sums)):
            chosen = levels[(classes == index) & (levels != UNKNOWN)]
            self.sums[index] += int(chosen.sum(dtype=np.int64))
            self.samples[index] += chosen.size

    def merge(self, other: Entropies) -> None:
        """Gather what ``other`` gathered."""
        self.sums = [mine + theirs for mine, theirs in zip(self.sums, other.sums)]
        self.samples = [mine + theirs for mine, theirs in zip(self.samples, other.samples)]

    def means(self) -> list[float | None]:
        """Of each class from 0 to 1; None where it has no sample."""
        return [total / (LEVELS * count) if count else None for total, count in zip(self.sums, self.samples)]

    def mean(self) -> float | None:
        """Of all tissue."""
        return sum(self.sums) / (LEVELS * sum(self.samples)) if any(self.samples) else None


def uncertainty_map(store: Rows) -> np.ndarray:
    """Mean entropy of blocks of 16 x 16 output pixels from the slide's left upper corner.

    Returns:
        uint8 [h, w], 0 (certain) to 254; 255 where no tissue was analysed.
    """
    n = BLOCK // STEP
    rows = []
    for band in store.bands(n * BAND, "entropy"):
        height, width = band.shape
        whole = np.pad(band, ((0, -height % n), (0, -width % n)), constant_values=UNKNOWN)
        blocks = whole.reshape(len(whole) // n, n, -1, n)
        count = (blocks != UNKNOWN).sum(axis=(1, 3), dtype=np.uint8)
        total = np.where(blocks == UNKNOWN, 0, blocks).sum(axis=(1, 3), dtype=np.uint16)
        mean = np.rint(total / np.maximum(count, 1)).astype(np.uint8)
        rows.append(np.where(count > 0, mean, np.uint8(UNKNOWN)))
    return np.concatenate(rows)
