"""The one interface by which slides are read."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightmuseg.errors import InputError, first_line

from ..tiff import raise_bug

WHITE = 255
# Pixels of the side of the parts that are tried where a slide's own tiles are not known.
PART = 256
# Pixels uint8 [height, width, 3], white where they could not be read; bool [height, width], True there, or None where
# everything was read; why, of each tile.
PartRead = tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]
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

    def tiles_of(self, xl: int, yl: int, width: int, height: int) -> tuple[range, range]:
        """Rows and columns of the tiles that a box touches; of parts where the tiles are not known."""
        return tuple(
            range(start // side, -(-(start + length) // side))
            for start, length, side in ((yl, height, self.tile_height or PART), (xl, width, self.tile_width or PART))
        )


@dataclass(frozen=True)
class Bounds:
    """The scanned part of a file, in pixels of the file's own level 0; a reader's level 0 shows this part."""

    x0: int
    y0: int
    width: int
    height: int


def paste(tile: np.ndarray, canvas: np.ndarray, left: int, upper: int) -> None:
    """Lay what of a tile [h, w, ...] lies inside a canvas into it, the tile's corner at ``left, upper``."""
    target = canvas[max(0, upper) :, max(0, left) :]
    part = tile[max(0, -upper) :, max(0, -left) :][: target.shape[0], : target.shape[1]]
    target[: part.shape[0], : part.shape[1]] = part


def assembled(
    level: Level, box: tuple[int, int, int, int], tile: Callable[[int, int], np.ndarray | None], channels: int = 3
) -> np.ndarray:
    """uint8 [height, width, channels] of a box (xl, yl, width, height) inside a level from its tiles.

    ``tile`` gives the pixels at a row and column; where it gives None, those of the box are left as they are.
    """
    pixels = np.empty((box[3], box[2], channels), np.uint8)
    for row, column in itertools.product(*level.tiles_of(*box)):
        if (part := tile(row, column)) is not None:
            paste(part, pixels, column * level.tile_width - box[0], row * level.tile_height - box[1])
    return pixels


class SlideReader(ABC):
    """An opened slide. Its methods may be called by several threads at once.

    A new format is a subclass, named in ``opening.READERS`` and, for "auto" to take it, in ``opening.backends_for``. It
    says

    - ``backend``, and ``decoding_errors``: what its library raises of damaged pixels;
    - ``_opened()``: opens ``path``, sets ``levels`` and ``stated_mpps`` and what else differs of the attributes below,
      and puts what is to be closed on the stack ``_open``. It raises NotForThisReader where the library is not
      installed or does not know the file, InputError where nothing should open it;
    - ``_decoded(level, xl, yl, width, height)``: the pixels of a box that lies inside a level.

    Args:
        path: of the slide's file or folder.
        workers: threads that read a batch.
        device: "cpu", or "cuda" to decode on a GPU where the reader can.
        series: number of the picture to take in a TIFF of several; None for the largest.

    Attributes:
        backend: short name of what reads it, such as "cucim".
        package: that it needs.
        levels: from the finest, whose downsample is 1.
        bounds: the part of the file's own level 0 that level 0 shows; None where it is all of it.
        stated_mpps: um/px of level 0 along x and y as the file states them; None where it does not.
        mpp: um/px of level 0; known once :func:`.opening.open_slide` has opened the slide.
        unchecked: the kind of file, where it is one of which damage can pass unseen.
        picture: which picture of a TIFF the slide is and what the others are, as plain values; None of other files.
    """

    backend: str
    package: str
    decoding_errors: tuple[type[Exception], ...] = ()
    levels: tuple[Level, ...]
    bounds: Bounds | None = None
    stated_mpps: tuple[float, float] | None = None
    mpp: float
    unchecked: str = ""
    picture: dict[str, Any] | None = None

    def __init__(self, path: Path, workers: int = 1, device: str = "cpu", series: int | None = None) -> None:
        self.path, self.workers, self._device, self._series = path, workers, device, series
        try:
            self._opened()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _opened(self) -> None:
        """Open the slide, see above."""

    @abstractmethod
    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """uint8 [height, width, 3] of a box that lies inside the level."""

    def read(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """uint8 [height, width, 3] at the corner ``xl, yl`` of a level, white outside of it.

        Raises:
            UnreadablePixels: where any of them cannot be decoded.
        """
        inside = self._inside(level, xl, yl, width, height)
        if self._lost and self.levels[level].tile_width:
            # what was tried once is not tried again
            keys = itertools.product([level], *self.levels[level].tiles_of(*inside))
            lost = [self._lost[key] for key in keys if key in self._lost]
            if lost:
                raise UnreadablePixels(*lost)
        if inside == (xl, yl, width, height):
            return self._decoded_or_error(level, *inside)
        box = np.full((height, width, 3), WHITE, np.uint8)
        if min(inside[2:]) > 0:
            paste(self._decoded_or_error(level, *inside), box, inside[0] - xl, inside[1] - yl)
        return box

    def read_partly(self, level: int, xl: int, yl: int, width: int, height: int) -> PartRead:
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
        stored = self.levels[level]
        across, down = stored.tile_width or PART, stored.tile_height or PART
        for row, column in itertools.product(*stored.tiles_of(*self._inside(level, xl, yl, width, height))):
            key, corner = (level, row, column), (column * across, row * down)
            size = min(across, stored.width - corner[0]), min(down, stored.height - corner[1])
            place = corner[0] - xl, corner[1] - yl
            try:
                if key not in self._lost:
                    paste(self._decoded_or_error(level, *corner, *size), pixels, *place)
                    continue
            except UnreadablePixels as error:
                # not the error itself, which holds on to pixels
                self._lost[key] = str(error)
            paste(np.ones(size[::-1], bool), unread, *place)
            reasons.append(self._lost[key])
        return pixels, unread if reasons else None, tuple(reasons)

    @cached_property
    def _lost(self) -> dict[tuple[int, int, int], str]:
        """Why tiles (level, row, column) cannot be decoded, of those that were tried."""
        return {}

    def _inside(self, level: int, xl: int, yl: int, width: int, height: int) -> tuple[int, int, int, int]:
        """The part of a box inside the level; its width or height is 0 or less where there is none."""
        stored, left, upper = self.levels[level], max(0, xl), max(0, yl)
        return left, upper, min(stored.width, xl + width) - left, min(stored.height, yl + height) - upper

    def _decoded_or_error(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """As :meth:`_decoded`, its library's errors as UnreadablePixels."""
        try:
            return self._decoded(level, xl, yl, width, height)
        except InputError:
            raise
        except self.decoding_errors as error:
            raise_bug(error)
            x0, y0 = (round(n * self.levels[level].downsample) for n in (xl, yl))
            raise UnreadablePixels(
                f"{self.path}: {width} x {height} pixels of level {level} at level-0 pixel {x0}, {y0} cannot be "
                f"decoded by {self.backend} ({first_line(error)}); copy or export it again."
            ) from error

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
    def _open(self) -> ExitStack:
        """What is let go with the slide."""
        return ExitStack()

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return self._open.enter_context(ThreadPoolExecutor(self.workers, "reader"))

    def close(self) -> None:
        """Let the file and the threads go."""
        self._open.close()

    def __enter__(self) -> SlideReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
