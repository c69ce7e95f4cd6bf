"""A slide at the model's um/px, whatever its levels are.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels, ``xm, ym`` pixels at the
model's um/px: ``x0 = xm * scale = xl * downsample``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from lightmuseg.data.resampling import level_for, resampled_box

from .readers import WHITE, SlideReader, UnreadablePixels

# Pixels of a level, along each axis, that a thumbnail is made from at once.
BLOCK = 2048


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
    """

    def __init__(self, reader: SlideReader, model_mpp: float) -> None:
        self.reader = reader
        self.scale = model_mpp / reader.mpp
        base = reader.levels[0]
        self.width, self.height = (max(1, round(size / self.scale)) for size in (base.width, base.height))
        tolerance = 0.5 / max(self.width, self.height)
        downsamples = [level.downsample for level in reader.levels]
        self._index = level_for(downsamples, self.scale * (1 + tolerance))
        self._level = reader.levels[self._index]
        # pixels of the level to one of the model's
        self._step = self.scale / self._level.downsample
        self._as_is = abs(self._step - 1) < tolerance

    def read_batch(self, corners_m: Sequence[tuple[int, int]], size: int) -> list[np.ndarray | UnreadablePixels]:
        """Boxes of ``size`` x ``size`` at ``corners_m`` (xm, ym): uint8 [size, size, 3], white outside the slide.

        What cannot be decoded is its error.
        """
        if self._as_is:
            return self.reader.read_batch(self._index, corners_m, size, size)
        return self.reader.map(lambda corner: self._resampled(*corner, size), corners_m)

    def _resampled(self, xm: int, ym: int, size: int) -> np.ndarray | UnreadablePixels:
        left, upper = max(0, xm), max(0, ym)
        width, height = min(self.width, xm + size) - left, min(self.height, ym + size) - upper
        box = np.full((size, size, 3), WHITE, np.uint8)
        if min(width, height) <= 0:
            return box
        place = resampled_box(
            (left * self._step, upper * self._step),
            (width * self._step, height * self._step),
            (width, height),
            (self._level.width, self._level.height),
        )
        try:
            pixels = place.resampled(_continued(self.reader, self._index, *place.corner, *place.size))
        except UnreadablePixels as error:
            return error
        if (width, height) == (size, size):
            return pixels
        box[upper - ym : upper - ym + height, left - xm : left - xm + width] = pixels
        return box


class ViewPart:
    """A :class:`ModelView` from a place of the slide on; pixels around it are the slide's own.

    Args:
        view: of the slide.
        xm, ym: the place, in the model's pixels.
    """

    def __init__(self, view: ModelView, xm: int, ym: int) -> None:
        self.reader, self.scale = view.reader, view.scale
        self._view, self._corner = view, (xm, ym)

    def read_batch(self, corners_m: Sequence[tuple[int, int]], size: int) -> list[np.ndarray | UnreadablePixels]:
        """As :meth:`ModelView.read_batch`."""
        xm, ym = self._corner
        return self._view.read_batch([(xm + x, ym + y) for x, y in corners_m], size)


def thumbnail(reader: SlideReader, max_mpp: float, max_side: int) -> tuple[np.ndarray, float]:
    """The whole slide at low power, each pixel the mean of those it covers.

    It is read block by block from the coarsest level that is as fine or finer; what cannot be decoded is white.

    Args:
        reader: the slide, whose ``mpp`` is known.
        max_mpp: um/px that are fine enough; a coarser slide is taken as it is.
        max_side: pixels that neither side exceeds, however coarse the thumbnail gets by it.

    Returns:
        uint8 [h, w, 3], and level-0 pixels to one of its own along both axes, exactly: pixel (x, y) shows the box of
        ``x * factor``, ``y * factor``; the last ones reach over the slide's edge by a part.
    """
    base = reader.levels[0]
    factor = max(1.0, max_mpp / reader.mpp, max(base.width, base.height) / max_side)
    # the slack is for a quotient's last bit
    width, height = (max(1, math.ceil(size / factor - 1e-6)) for size in (base.width, base.height))
    index = level_for([level.downsample for level in reader.levels], factor * (1 + 1e-9))
    block = max(1, int(BLOCK * reader.levels[index].downsample / factor))
    image = np.full((height, width, 3), WHITE, np.uint8)

    def fill(corner: tuple[int, int]) -> None:
        x, y = corner
        _fill(image, reader, index, factor, (x, y, min(x + block, width), min(y + block, height)))

    reader.map(fill, itertools.product(range(0, width, block), range(0, height, block)))
    return image, factor


def _fill(image: np.ndarray, reader: SlideReader, index: int, factor: float, box: tuple[int, int, int, int]) -> None:
    """Draw a box (left, upper, right, lower) of a thumbnail, where it cannot be read its quarters, and so on."""
    left, upper, right, lower = box
    try:
        image[upper:lower, left:right] = scaled_box(reader, index, factor, box)
    except UnreadablePixels:
        if max(right - left, lower - upper) == 1:
            return
        middle_x, middle_y = (left + right + 1) // 2, (upper + lower + 1) // 2
        for x_from, x_to in ((left, middle_x), (middle_x, right)):
            for y_from, y_to in ((upper, middle_y), (middle_y, lower)):
                if x_to > x_from and y_to > y_from:
                    _fill(image, reader, index, factor, (x_from, y_from, x_to, y_to))


def scaled_box(reader: SlideReader, index: int, factor: float, box: tuple[int, int, int, int]) -> np.ndarray:
    """A box of the slide at low power, each pixel the mean of those it covers.

    Args:
        reader: the slide.
        index: of the level it is made from, as fine or finer.
        factor: level-0 pixels to one of the box's.
        box: left, upper, right and lower edge, in its own pixels from the slide's corner; may reach over the slide's
            other edges by a part of a pixel.

    Returns:
        uint8 [lower - upper, right - left, 3].

    Raises:
        UnreadablePixels: where any of them cannot be decoded.
    """
    left, upper, right, lower = box
    edges = [n * factor / reader.levels[index].downsample for n in box]
    xl, yl = math.floor(edges[0]), math.floor(edges[1])
    pixels = _continued(reader, index, xl, yl, math.ceil(edges[2]) - xl, math.ceil(edges[3]) - yl)
    part = tuple(edge - start for edge, start in zip(edges, (xl, yl, xl, yl)))
    size = right - left, lower - upper
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, box=part))


def _continued(reader: SlideReader, index: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3] at a corner in a level; where a rounded size reaches over its edge, the edge goes on."""
    level = reader.levels[index]
    xl, yl = min(xl, level.width - 1), min(yl, level.height - 1)
    inside = min(width, level.width - xl), min(height, level.height - yl)
    pixels = reader.read(index, xl, yl, *inside)
    if inside == (width, height):
        return pixels
    return np.pad(pixels, ((0, height - inside[1]), (0, width - inside[0]), (0, 0)), mode="edge")
