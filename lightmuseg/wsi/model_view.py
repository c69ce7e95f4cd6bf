"""A slide at the model's um/px, whatever its levels are."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from .mirroring import mirrored
from .readers import SlideReader, UnreadablePixels
from .readers.reader import PartRead
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
    """uint8 [height, width, 3] of a box of level-0 pixels, at any scale; the slide mirrored right of it and below.

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
    as_is = all(abs(length / n - 1) < tolerance for length, n in zip((width, height), size))
    corner, steps = ((round(xl), round(yl)), (1, 1)) if as_is else ((xl, yl), (width / size[0], height / size[1]))
    inside = tuple(
        max(1, min(n, round((limit - at) / step)))
        for n, limit, at, step in zip(size, (level.width, level.height), corner, steps)
    )
    if as_is:
        pixels = reader.read(index, *corner, *inside)
    else:
        extent = inside[0] * steps[0], inside[1] * steps[1]
        pixels, unread, reasons = read_resampled(reader, index, resampled_box(corner, extent, inside, level))
        if unread is not None:
            raise UnreadablePixels(reasons[0])
    missing = (0, size[1] - inside[1]), (0, size[0] - inside[0]), (0, 0)
    return np.pad(pixels, missing, mode="reflect") if inside != size else pixels


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
        level = reader.levels[self.index]
        # what is mirrored outside: of a level that is read as it is its own pixels
        self._seen_m = (level.width, level.height) if self._as_is else (self.width, self.height)

    def shifted(self, xm: int, ym: int) -> ModelView:
        """The view from a place of the slide on; what lies around it is the slide's own."""
        view = copy.copy(self)
        view._corner_m = xm, ym
        return view

    def read_batch(self, corners_m: Sequence[tuple[int, int]], size: int) -> list[np.ndarray | UnreadablePixels]:
        """Boxes of ``size`` x ``size`` at ``corners_m`` (xm, ym): uint8 [size, size, 3], the slide mirrored outside it.

        One of which the level cannot give everything is an error, which holds what was read where anything was. The
        rest is taken from finer levels; never from a coarser one, which does not look like what a network has learned.
        """
        size_m = min(size, self._seen_m[0]), min(size, self._seen_m[1])
        # of each box the columns and rows of the slide that it shows, and the corner of what holds them all
        places_m = [
            [mirrored(first + at, size, limit) for first, at, limit in zip(self._corner_m, corner, self._seen_m)]
            for corner in corners_m
        ]
        corners_m = [
            tuple(min(int(at.min()), limit - side) for at, limit, side in zip(places, self._seen_m, size_m))
            for places in places_m
        ]
        shown = [[at - start for at, start in zip(*box)] for box in zip(places_m, corners_m)]
        if not self._as_is:
            return self.reader.map(
                lambda box: self._completed(*box, size_m, self._resampled(self.index, box[0], size_m)),
                list(zip(corners_m, shown)),
            )
        boxes = self.reader.read_batch(self.index, corners_m, *size_m)
        for number, (corner, places) in enumerate(zip(corners_m, shown)):
            box = boxes[number]
            unreadable = isinstance(box, UnreadablePixels)
            part = self.reader.read_partly(self.index, *corner, *size_m) if unreadable else (box, None, ())
            boxes[number] = self._completed(corner, places, size_m, part)
        return boxes

    def _completed(
        self, corner_m: tuple[int, int], shown: Sequence[np.ndarray], size_m: tuple[int, int], part: PartRead
    ) -> np.ndarray | UnreadablePixels:
        """The columns and rows of a box that are ``shown``, what its level cannot give by finer levels."""
        pixels, unread, reasons = part
        if unread is None or not _taken(unread, *shown).any():
            return _taken(pixels, *shown)
        for index in range(self.index - 1, -1, -1):
            if not unread.any():
                break
            finer, missing, _ = self._resampled(index, corner_m, size_m)
            filled = unread if missing is None else unread & ~missing
            pixels = np.where(filled[..., None], finer, pixels)
            unread = unread & ~filled
        pixels, unread = _taken(pixels, *shown), _taken(unread, *shown)
        return UnreadablePixels(*reasons) if unread.all() else PartlyRead(pixels, unread, reasons)

    def _resampled(self, index: int, corner_m: tuple[int, int], size_m: tuple[int, int]) -> PartRead:
        """A box inside the slide from a level."""
        level = self.reader.levels[index]
        step = self.scale / level.downsample
        corner, extent = ((x * step, y * step) for x, y in (corner_m, size_m))
        return read_resampled(self.reader, index, resampled_box(corner, extent, size_m, level))


def _taken(box: np.ndarray, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """These columns and rows of a box [h, w, ...]; where they are all of it, in order, the box itself."""
    height, width = box.shape[:2]
    if (len(ys), len(xs)) == (height, width) and (ys[-1] - ys[0], xs[-1] - xs[0]) == (height - 1, width - 1):
        return box
    return box[ys[:, None], xs]
