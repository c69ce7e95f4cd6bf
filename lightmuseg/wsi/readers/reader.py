"""The one interface by which slides are read.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels, ``xm, ym`` pixels at the
model's um/px, ``xo, yo`` pixels of the output.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightmuseg.errors import InputError, first_line

WHITE = 255
# Pixels of the side of the parts that are tried where a slide's own tiles are not known.
PART = 256
_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


class NotForThisReader(InputError):
    """A reader that is not installed or does not know the file; another may open it."""


class UnreadablePixels(InputError):
    """Pixels inside a slide that opens cannot be decoded.

    Args:
        reasons: one or more lines that name the file and the place; the first is the message.
    """

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Level:
    """A level of a pyramid.

    Attributes:
        width, height: in its own pixels.
        downsample: level-0 pixels to one of its own.
        tile_width, tile_height: of the tiles, frames or strips that are decoded in one piece; 0 where not known.
    """

    width: int
    height: int
    downsample: float
    tile_width: int = 0
    tile_height: int = 0


@dataclass(frozen=True)
class Frame:
    """A box in pixels of the file's own level 0, which a reader's level 0 shows."""

    x0: int
    y0: int
    width: int
    height: int

    def in_level(self, downsample: float) -> Level:
        """The box in a level of the file."""
        return Level(max(1, round(self.width / downsample)), max(1, round(self.height / downsample)), downsample)


class SlideReader(ABC):
    """An opened slide. Its methods may be called by several threads at once.

    Attributes:
        path: of the slide's file or folder.
        backend: short name of what reads it, such as "cucim".
        levels: from the finest, whose downsample is 1.
        frame: the part of the file's own level 0 that level 0 shows; None where it is all of it.
        stated_mpps: um/px of level 0 along x and y as the file states them; None where it does not.
        mpp: um/px of level 0; known once :func:`.opening.open_slide` has opened the slide.
        unchecked: the kind of file, where it is one of which damage can pass unseen.
        workers: threads that read a batch.
        picture: which picture of a TIFF the slide is and what the others are, as plain values; None of other files.
    """

    path: Path
    backend: str
    levels: tuple[Level, ...]
    frame: Frame | None = None
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
        if self._lost and at.tile_width:
            # what was tried once is not tried again
            lost = [self._lost[key] for key in self._tiles_in(level, left, upper, *inside) if key in self._lost]
            if lost:
                raise UnreadablePixels(*lost)
        if inside == (width, height):
            return self._decoded(level, xl, yl, width, height)
        box = np.full((height, width, 3), WHITE, np.uint8)
        if min(inside) > 0:
            pixels = self._decoded(level, left, upper, *inside)
            box[upper - yl :, left - xl :][: inside[1], : inside[0]] = pixels
        return box

    def read_partly(
        self, level: int, xl: int, yl: int, width: int, height: int
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
        """What :meth:`read` gives, where a part of it cannot be decoded too.

        Where the box as a whole cannot be decoded, the level's tiles in it are, each by itself; one that cannot is
        remembered. Where the tiles are not known, squares of 256 pixels take their place.

        Returns:
            uint8 [height, width, 3], white where it could not be read; bool [height, width], True there, or None where
            everything was read; why, of each tile.
        """
        try:
            return self.read(level, xl, yl, width, height), None, ()
        except UnreadablePixels:
            pixels = np.full((height, width, 3), WHITE, np.uint8)
            unread, reasons = np.zeros((height, width), bool), []
        at = self.levels[level]
        left, upper = max(0, xl), max(0, yl)
        inside = min(at.width, xl + width) - left, min(at.height, yl + height) - upper
        for key in self._tiles_in(level, left, upper, *inside):
            corner, size, tile = self._tile_alone(*key)
            x, y = corner[0] - xl, corner[1] - yl
            here = slice(max(0, y), y + size[1]), slice(max(0, x), x + size[0])
            if isinstance(tile, str):
                unread[here] = True
                reasons.append(tile)
            else:
                target = pixels[here]
                target[...] = tile[max(0, -y) :, max(0, -x) :][: target.shape[0], : target.shape[1]]
        return pixels, unread if reasons else None, tuple(reasons)

    @cached_property
    def _lost(self) -> dict[tuple[int, int, int], str]:
        """Why tiles (level, row, column) cannot be decoded, of those that were tried."""
        return {}

    def _tile_size(self, level: int) -> tuple[int, int]:
        at = self.levels[level]
        return (at.tile_width, at.tile_height) if at.tile_width else (PART, PART)

    def _tiles_in(self, level: int, xl: int, yl: int, width: int, height: int) -> Iterator[tuple[int, int, int]]:
        """The tiles (level, row, column) of a box that lies inside the level."""
        columns, rows = (
            range(start // side, math.ceil((start + length) / side))
            for start, length, side in zip((xl, yl), (width, height), self._tile_size(level))
        )
        return ((level, row, column) for row, column in itertools.product(rows, columns))

    def _tile_alone(
        self, level: int, row: int, column: int
    ) -> tuple[tuple[int, int], tuple[int, int], np.ndarray | str]:
        """The corner of a tile in its level, its size, and its pixels or why they cannot be decoded."""
        at, (width, height) = self.levels[level], self._tile_size(level)
        xl, yl = column * width, row * height
        size = min(width, at.width - xl), min(height, at.height - yl)
        key = level, row, column
        if key not in self._lost:
            try:
                return (xl, yl), size, self._decoded(level, xl, yl, *size)
            except UnreadablePixels as error:
                # not the error itself, which holds on to pixels
                self._lost[key] = str(error)
        return (xl, yl), size, self._lost[key]

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
