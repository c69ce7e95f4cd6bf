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
        tissue: by index, from 0 (other tissue), of the pixels of tissue that could be read.
        unread: pixels whose slide is corrupt there.
        analysed: pixels of tissue and of glass beside it, but those.

    >>> counts = Counts.of(["tumor"])
    >>> analysed, tissue = np.array([[True, True, True, True]]), np.array([[False, True, True, True]])
    >>> counts.add(np.array([[0, 0, 1, 255]], np.uint8), analysed, tissue)
    >>> counts
    Counts(tissue=[1, 1], unread=1, analysed=3)
    """

    tissue: list[int] = field(default_factory=list)
    unread: int = 0
    analysed: int = 0

    @classmethod
    def of(cls, class_names: Sequence[str]) -> Counts:
        """Nothing counted yet of these classes."""
        return cls([0] * (len(class_names) + 1))

    def add(self, classes: np.ndarray, analysed: np.ndarray, tissue: np.ndarray) -> None:
        """Count a block.

        Args:
            classes: class indices uint8 [H, W].
            analysed: bool [H, W], what the network looked at.
            tissue: bool [H, W], what of that is no glass.
        """
        for index in range(len(self.tissue)):
            self.tissue[index] += int(np.count_nonzero((classes == index) & tissue))
        unread = classes == UNREAD
        self.unread += int(np.count_nonzero(unread))
        self.analysed += int(np.count_nonzero(analysed & ~unread))

    def merge(self, other: Counts) -> None:
        """Count what ``other`` counted."""
        self.tissue = [mine + theirs for mine, theirs in zip(self.tissue, other.tissue)]
        self.unread += other.unread
        self.analysed += other.analysed
