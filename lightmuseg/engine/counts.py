"""Pixels of each class, counted while the map grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lightmuseg.classes import UNREAD


@dataclass
class Counts:
    """Pixels of each class, gathered block by block; ``dataclasses.asdict`` keeps them, ``Counts(**kept)`` is back.

    Attributes:
        analysed: by index, from 0 (other tissue), of the analysed pixels that could be read.
        unread: pixels whose slide is corrupt there, analysed or not.

    >>> counts = Counts.of(["tumor"])
    >>> counts.add(np.array([[0, 1, 255]], np.uint8), np.array([[True, True, True]]))
    >>> counts
    Counts(analysed=[1, 1], unread=1)
    """

    analysed: list[int] = field(default_factory=list)
    unread: int = 0

    @classmethod
    def of(cls, class_names: Sequence[str]) -> Counts:
        """Nothing counted yet of these classes."""
        return cls([0] * (len(class_names) + 1))

    def add(self, classes: np.ndarray, analysed: np.ndarray) -> None:
        """Count a block: class indices uint8 [H, W], and bool [H, W], True inside tissue and region of interest."""
        for index in range(len(self.analysed)):
            self.analysed[index] += int(np.count_nonzero((classes == index) & analysed))
        self.unread += int(np.count_nonzero(classes == UNREAD))

    def merge(self, other: Counts) -> None:
        """Count what ``other`` counted."""
        self.analysed = [mine + theirs for mine, theirs in zip(self.analysed, other.analysed)]
        self.unread += other.unread
