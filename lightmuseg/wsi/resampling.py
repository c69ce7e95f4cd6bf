"""Boxes of a slide at another scale than its levels have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from .readers import Level, SlideReader
from .readers.reader import PartRead


class ResampledBox(NamedTuple):
    """A box in a level that becomes other pixels.

    ``corner`` and ``size`` are of the whole pixels of the level to read; ``box`` is the left, upper, right and lower
    edge of the box in what is read, ``result`` the width and height of what becomes of it, and ``reach`` that of the
    filter in pixels of the level: 0 of means.
    """

    corner: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    result: tuple[int, int]
    reach: int

    def resampled(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [height, width, 3] of what was read at ``corner``: Lanczos down, bicubic up, or means."""
        left, upper, right, lower = self.box
        down = right - left > self.result[0] or lower - upper > self.result[1]
        how = Image.Resampling.LANCZOS if down else Image.Resampling.BICUBIC
        how = how if self.reach else Image.Resampling.BOX
        return np.asarray(Image.fromarray(pixels).resize(self.result, how, box=self.box))

    def touched(self, unread: np.ndarray) -> np.ndarray:
        """bool [height, width], where the filter takes any of those that are set of what was read."""
        felt = ndimage.maximum_filter(unread, 2 * self.reach + 1).astype(np.float32)
        return np.asarray(Image.fromarray(felt).resize(self.result, Image.Resampling.BOX, box=self.box)) > 0


def resampled_box(
    corner: tuple[float, float], extent: tuple[float, float], result: tuple[int, int], level: Level, means: bool = False
) -> ResampledBox:
    """What to read of a level for a box.

    It has a margin of the filter's reach, so that a box's edge is as its slide's middle; the slide's own edge ends the
    filter.

    Args:
        corner: of the box (xl, yl).
        extent: width and height of the box in the level's pixels.
        result: width and height that it is resampled to.
        level: of the slide.
        means: whether each pixel is the mean of those it covers, not what a filter makes of those around it.
    """
    reach = 0 if means else math.ceil(3 * max(1.0, extent[0] / result[0], extent[1] / result[1]))
    starts, sizes = [], []
    for start, length, limit in zip(corner, extent, (level.width, level.height)):
        end = math.ceil(start + length)
        starts.append(max(0, math.floor(start) - reach))
        sizes.append(max(end, min(limit, end + reach)) - starts[-1])
    left, upper = (n - start for n, start in zip(corner, starts))
    box = left, upper, left + extent[0], upper + extent[1]
    return ResampledBox(tuple(starts), tuple(sizes), box, result, reach)


def read_resampled(reader: SlideReader, index: int, place: ResampledBox) -> PartRead:
    """A box of a level, as far as it can be read; where a rounded size reaches over the level's edge, it goes on."""
    level = reader.levels[index]
    xl, yl = min(place.corner[0], level.width - 1), min(place.corner[1], level.height - 1)
    inside = min(place.size[0], level.width - xl), min(place.size[1], level.height - yl)
    pixels, unread, reasons = reader.read_partly(index, xl, yl, *inside)
    over = (0, place.size[1] - inside[1]), (0, place.size[0] - inside[0])
    pixels = place.resampled(np.pad(pixels, (*over, (0, 0)), mode="edge"))
    return pixels, None if unread is None else place.touched(np.pad(unread, over, mode="edge")), reasons


def level_for(downsamples: Sequence[float], finest: float) -> int:
    """The level to read: the coarsest whose downsample is at most ``finest``, or else level 0."""
    return max((index for index, downsample in enumerate(downsamples) if downsample <= finest), default=0)
