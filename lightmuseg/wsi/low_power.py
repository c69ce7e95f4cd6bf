"""A slide or a part of it at low power, from whichever of its levels can be read."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from .readers import WHITE, SlideReader
from .resampling import level_for, read_resampled, resampled_box

# Pixels of a level, along each axis, that are read at once.
BLOCK = 2048


@dataclass(frozen=True)
class LowPower:
    """A slide or a part of it at low power, each pixel the mean of those it covers.

    Attributes:
        pixels: uint8 [h, w, 3], white where no level can be read.
        unread: bool [h, w], True there.
        factor: level-0 pixels to one of its own along both axes, exactly.
        level: the one it is made from.
        elsewhere: how many pixels that level could not give and others did.
        reasons: why, of each tile of that level.
    """

    pixels: np.ndarray
    unread: np.ndarray
    factor: float
    level: int
    elsewhere: int
    reasons: tuple[str, ...]


def thumbnail(reader: SlideReader, max_mpp: float, max_side: int) -> LowPower:
    """The whole slide, from the coarsest level that is as fine or finer.

    Pixel (x, y) shows the box of ``x * factor``, ``y * factor``; the last ones reach over the slide's edge by a part.

    Args:
        reader: the slide, whose ``mpp`` is known.
        max_mpp: um/px that are fine enough; a coarser slide is taken as it is.
        max_side: pixels that neither side exceeds, however coarse the thumbnail gets by it.
    """
    base = reader.levels[0]
    factor = max(1.0, max_mpp / reader.mpp, max(base.width, base.height) / max_side)
    # the slack is for a quotient's last bit
    width, height = (max(1, math.ceil(size / factor - 1e-6)) for size in (base.width, base.height))
    index = level_for([level.downsample for level in reader.levels], factor * (1 + 1e-9))
    return low_power_of(reader, index, factor, (0, 0, width, height))


def low_power_of(
    reader: SlideReader, index: int, factor: float, box: tuple[int, int, int, int], coarser: bool = True
) -> LowPower:
    """A box of the slide, block by block.

    What its level cannot give is taken from another one: of the finer ones from the next, then from coarser ones.

    Args:
        reader: the slide.
        index: of the level it is made from, as fine or finer.
        factor: level-0 pixels to one of the box's.
        box: left, upper, right and lower edge, in its own pixels from the slide's corner; may reach over the slide's
            other edges by a part of a pixel.
        coarser: whether coarser levels may stand for it.
    """
    left, upper, right, lower = box
    pixels = np.full((lower - upper, right - left, 3), WHITE, np.uint8)
    unread = np.ones(pixels.shape[:2], bool)
    reasons: list[str] = []
    lost = 0
    for level in (*range(index, -1, -1), *range(index + 1, len(reader.levels) if coarser else 0)):
        block = max(1, int(BLOCK * reader.levels[level].downsample / factor))

        def draw(corner: tuple[int, int], level: int = level, block: int = block) -> None:
            y, x = corner
            found = _bounds(unread[y : y + block, x : x + block])
            if found is None:
                return
            part = slice(y + found[1], y + found[3]), slice(x + found[0], x + found[2])
            size, step = (found[2] - found[0], found[3] - found[1]), factor / reader.levels[level].downsample
            corner_l = (left + part[1].start) * step, (upper + part[0].start) * step
            extent = size[0] * step, size[1] * step
            place = resampled_box(corner_l, extent, size, reader.levels[level], means=True)
            drawn, missing, why = read_resampled(reader, level, place)
            filled = unread[part] if missing is None else unread[part] & ~missing
            np.copyto(pixels[part], drawn, where=filled[..., None])
            unread[part] &= ~filled
            if level == index:
                reasons.extend(why)

        reader.map(draw, itertools.product(range(0, lower - upper, block), range(0, right - left, block)))
        if level == index:
            lost = int(np.count_nonzero(unread))
        if not unread.any():
            break
    elsewhere = lost - int(np.count_nonzero(unread))
    return LowPower(pixels, unread, factor, index, elsewhere, tuple(dict.fromkeys(reasons)))


def _bounds(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, upper, right and lower edge of what is set; None where nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None
