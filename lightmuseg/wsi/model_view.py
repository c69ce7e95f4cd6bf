"""A slide at the model's um/px, whatever its levels are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from .readers import WHITE, SlideReader, UnreadablePixels
from .readers.reader import PartRead, paste
from .resampling import level_for, read_resampled, resampled_box


class PartlyRead(UnreadablePixels):
    """A box of which the level cannot give everything, with what could be read.

    Args:
        pixels: uint8 [size, size, 3]; white where nothing was read.
        unread: bool [size, size], True there; of what a finer level gave instead it is not.
        reasons: as of any :class:`UnreadablePixels`.
    """

    def __init__(self, pixels: np.ndarray, unread: np.ndarray, reasons: Sequence[str]) -> None:
        super().__init__(*reasons)
        self.pixels, self.unread = pixels, unread


def whole(box: np.ndarray | UnreadablePixels) -> np.ndarray | None:
    """The pixels of a box of which everything was read, from whichever level; else None."""
    if isinstance(box, PartlyRead) and not box.unread.any():
        return box.pixels
    return None if isinstance(box, UnreadablePixels) else box


def read_box(
    reader: SlideReader, x0: float, y0: float, width0: float, height0: float, size: tuple[int, int]
) -> np.ndarray:
    """uint8 [height, width, 3] of a box of level-0 pixels, at any place and scale; white right of the slide and below.

    Args:
        reader: the slide.
        x0, y0: left upper corner of the box, inside the slide.
        width0, height0: of the box.
        size: width and height of what becomes of it, from the level of that scale or the next finer one resampled.

    Raises:
        UnreadablePixels: where any of it cannot be decoded.
    """
    # the error of a scale that is called equal stays under half a pixel at the far edge
    tolerance = 0.5 / max(size)
    finest = min(width0 / size[0], height0 / size[1]) * (1 + tolerance)
    index = level_for([level.downsample for level in reader.levels], finest)
    level = reader.levels[index]
    xl, yl, width, height = (n / level.downsample for n in (x0, y0, width0, height0))
    if all(abs(length / n - 1) < tolerance for length, n in zip((width, height), size)):
        return reader.read(index, round(xl), round(yl), *size)
    box = resampled_box((xl, yl), (width, height), size, level)
    return box.resampled(reader.read(index, *box.corner, *box.size))


class ModelView:
    """A slide at one um/px: as its level is where one has it, else resampled from the next finer level.

    A level is taken for the model's where its last pixel lies less than half a pixel off; otherwise every pixel is
    resampled at its exact place, so that boxes fit together at any distance from the slide's corner.

    Args:
        reader: the slide, whose ``mpp`` is known.
        model_mpp: um/px of the view.

    Attributes:
        width, height: of the slide, in the model's pixels.
        scale: level-0 pixels to one of the model's.
        index: of the level that is read.
    """

    def __init__(self, reader: SlideReader, model_mpp: float) -> None:
        self.reader = reader
        self.scale = model_mpp / reader.mpp
        base = reader.levels[0]
        self.width, self.height = (max(1, round(size / self.scale)) for size in (base.width, base.height))
        tolerance = 0.5 / max(self.width, self.height)
        downsamples = [level.downsample for level in reader.levels]
        self.index = level_for(downsamples, self.scale * (1 + tolerance))
        self._corner_m = 0, 0
        self._as_is = abs(self.scale / downsamples[self.index] - 1) < tolerance

    def shifted(self, xm: int, ym: int) -> ModelView:
        """The view from a place of the slide on; what lies around it is the slide's own."""
        view = copy.copy(self)
        view._corner_m = xm, ym
        return view

    def read_batch(self, corners_m: Sequence[tuple[int, int]], size: int) -> list[np.ndarray | UnreadablePixels]:
        """Boxes of ``size`` x ``size`` at ``corners_m`` (xm, ym): uint8 [size, size, 3], white outside the slide.

        One of which the level cannot give everything is an error, which holds what was read where anything was. The
        rest is taken from finer levels; never from a coarser one, which does not look like what a network has learned.
        """
        corners_m = [(self._corner_m[0] + xm, self._corner_m[1] + ym) for xm, ym in corners_m]
        if not self._as_is:
            return self.reader.map(
                lambda corner: self._completed(*corner, size, self._resampled(self.index, *corner, size)), corners_m
            )
        boxes = self.reader.read_batch(self.index, corners_m, size, size)
        for number, corner in enumerate(corners_m):
            if isinstance(boxes[number], UnreadablePixels):
                part = self.reader.read_partly(self.index, *corner, size, size)
                boxes[number] = self._completed(*corner, size, part)
        return boxes

    def _completed(self, xm: int, ym: int, size: int, part: PartRead) -> np.ndarray | UnreadablePixels:
        """A box, where its level cannot give everything with what finer levels can."""
        pixels, unread, reasons = part
        if unread is None:
            return pixels
        for index in range(self.index - 1, -1, -1):
            if not unread.any():
                break
            finer, missing, _ = self._resampled(index, xm, ym, size)
            filled = unread if missing is None else unread & ~missing
            pixels = np.where(filled[..., None], finer, pixels)
            unread = unread & ~filled
        inside = unread[max(0, -ym) : self.height - ym, max(0, -xm) : self.width - xm]
        return UnreadablePixels(*reasons) if inside.all() else PartlyRead(pixels, unread, reasons)

    def _resampled(self, index: int, xm: int, ym: int, size: int) -> PartRead:
        """A box from a level, white outside of the slide."""
        level = self.reader.levels[index]
        step = self.scale / level.downsample
        left, upper = max(0, xm), max(0, ym)
        width, height = min(self.width, xm + size) - left, min(self.height, ym + size) - upper
        box = np.full((size, size, 3), WHITE, np.uint8)
        if min(width, height) <= 0:
            return box, None, ()
        place = resampled_box((left * step, upper * step), (width * step, height * step), (width, height), level)
        pixels, unread, reasons = read_resampled(self.reader, index, place)
        if (width, height) == (size, size):
            return pixels, unread, reasons
        paste(pixels, box, left - xm, upper - ym)
        if unread is not None:
            inside, unread = unread, np.zeros((size, size), bool)
            paste(inside, unread, left - xm, upper - ym)
        return box, unread, reasons
