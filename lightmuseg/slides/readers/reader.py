"""The one interface by which slides are read.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels, ``xm, ym`` pixels at the
model's um/px, ``xo, yo`` pixels of the output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightmuseg.errors import InputError, first_line

WHITE = 255
_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


class NotForThisReader(InputError):
    """A reader that is not installed or does not know the file; another may open it."""


class UnreadablePixels(InputError):
    """Pixels inside a slide that opens cannot be decoded; the message names the file and the place."""


@dataclass(frozen=True)
class Level:
    """A level of a pyramid: its size in pixels, and level-0 pixels to one of its own."""

    width: int
    height: int
    downsample: float


class SlideReader(ABC):
    """An opened slide. Its methods may be called by several threads at once.

    Attributes:
        path: of the slide's file or folder.
        backend: short name of what reads it, such as "cucim".
        levels: from the finest, whose downsample is 1.
        stated_mpps: um/px of level 0 along x and y as the file states them; None where it does not.
        mpp: um/px of level 0; known once :func:`.opening.open_slide` has opened the slide.
        workers: threads that read a batch.
        picture: which picture of a TIFF the slide is and what the others are, as plain values; None of other files.
    """

    path: Path
    backend: str
    levels: tuple[Level, ...]
    stated_mpps: tuple[float, float] | None
    mpp: float
    unchecked: str = ""
    workers: int = 1
    picture: dict[str, Any] | None = None

    def read(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """uint8 [height, width, 3] at the corner ``xl, yl`` of a level, white outside of it.

        Raises:
            UnreadablePixels: where any of them cannot be decoded.
        """
        at = self.levels[level]
        left, upper = max(0, xl), max(0, yl)
        inside = min(at.width, xl + width) - left, min(at.height, yl + height) - upper
        if inside == (width, height):
            return self._decoded(level, xl, yl, width, height)
        box = np.full((height, width, 3), WHITE, np.uint8)
        if min(inside) > 0:
            pixels = self._decoded(level, left, upper, *inside)
            box[upper - yl :, left - xl :][: inside[1], : inside[0]] = pixels
        return box

    @abstractmethod
    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """What :meth:`read` gives, of a box that lies inside the level."""

    def unreadable(
        self, level: int, xl: int, yl: int, width: int, height: int, error: BaseException
    ) -> UnreadablePixels:
        """The error of a box that cannot be decoded."""
        x0, y0 = (round(n * self.levels[level].downsample) for n in (xl, yl))
        return UnreadablePixels(
            f"{self.path}: {width} x {height} pixels of level {level} at level-0 pixel {x0}, {y0} cannot be decoded by "
            f"{self.backend} ({first_line(error)}); copy or export it again."
        )

    def read_batch(
        self, level: int, corners: Sequence[tuple[int, int]], width: int, height: int
    ) -> list[np.ndarray | UnreadablePixels]:
        """Boxes of one size, in the order of their ``corners`` (xl, yl); what cannot be decoded is its error."""

        def box(corner: tuple[int, int]) -> np.ndarray | UnreadablePixels:
            try:
                return self.read(level, *corner, width, height)
            except UnreadablePixels as error:
                return error

        return self.map(box, corners)

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """What a function gives for each item, computed by the reader's threads."""
        return list(map(function, items) if self.workers == 1 else self._threads.map(function, items))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers, "reader")

    def close(self) -> None:
        """Let the file and the threads go."""
        if "_threads" in vars(self):
            self._threads.shutdown()

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
