"""Which pixels of a slide to read, and how to resample them, where it is wanted at another scale than it has.

Frames: ``xl, yl`` are pixels of a level of a slide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class ResampledBox:
    """A box in a level that becomes other pixels.

    Attributes:
        corner, size: of the whole pixels of the level to read (xl, yl; width, height).
        box: the left, upper, right and lower edge of the box in what is read.
        result: width and height of what becomes of it.
    """

    corner: tuple[int, int]
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    result: tuple[int, int]

    def resampled(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [height, width, 3] of what was read at ``corner``: Lanczos down, bicubic up."""
        left, upper, right, lower = self.box
        down = right - left > self.result[0] or lower - upper > self.result[1]
        how = Image.Resampling.LANCZOS if down else Image.Resampling.BICUBIC
        return np.asarray(Image.fromarray(pixels).resize(self.result, how, box=self.box))


def resampled_box(
    corner: tuple[float, float], extent: tuple[float, float], result: tuple[int, int], level_size: tuple[int, int]
) -> ResampledBox:
    """What to read of a level for a box.

    It has a margin of the filter's reach, so that a box's edge is as its slide's middle; the slide's own edge ends the
    filter.

    Args:
        corner: of the box (xl, yl).
        extent: width and height of the box in the level's pixels.
        result: width and height that it is resampled to.
        level_size: width and height of the level.
    """
    margin = math.ceil(3 * max(1.0, extent[0] / result[0], extent[1] / result[1]))
    starts, sizes = [], []
    for start, length, limit in zip(corner, extent, level_size):
        end = math.ceil(start + length)
        starts.append(max(0, math.floor(start) - margin))
        sizes.append(max(end, min(limit, end + margin)) - starts[-1])
    left, upper = (n - start for n, start in zip(corner, starts))
    return ResampledBox(
        corner=(starts[0], starts[1]),
        size=(sizes[0], sizes[1]),
        box=(left, upper, left + extent[0], upper + extent[1]),
        result=result,
    )


def level_for(downsamples: Sequence[float], finest: float) -> int:
    """The level to read: the coarsest whose downsample is at most ``finest``, or else level 0."""
    return max((index for index, downsample in enumerate(downsamples) if downsample <= finest), default=0)
