"""What of the area that is analysed is glass: a finer look than that which finds tissue."""

from __future__ import annotations

import itertools
import math

import numpy as np

from lightmuseg.wsi.low_power import LowPower, low_power_of
from lightmuseg.wsi.readers import SlideReader
from lightmuseg.wsi.resampling import level_for

from .area import Area, TissueMask
from .tissue import DARK, glass_colour, grown, magenta_and_ink

# Of the fine look: um/px, pixels of its longer side at most, and by how much a level may differ from that to be taken
# as it is, which saves reading a finer one.
FINE_MPP, FINE_SIDE, AS_IS = 4.0, 8192, 1 / 8
# Glass is no more magenta (see find_tissue) and no denser than this above the slide's own, both log10 of a ratio. At
# 4 um/px glass of three scanners strays by 0.003 and, with its uneven light and fine dust, by 0.02. Single pixels of
# tissue that is bleached to three quarters white are below too, discs of such pixels are not.
MAGENTA, DENSITY = 0.006, 0.025
# Radius of a disc that has room in open glass; fat cells and most lumens are narrower than 100 um.
OPEN_UM = 48.0
# What is like glass belongs to it so far beyond the disc: in the corners of a ragged border.
CORNER_UM = 16.0
# The disc's place is found on blocks of so many um.
BLOCK_UM = 8.0
# So far around what is wanted it decides what there is.
SURROUNDINGS_UM = 160.0
# Rows of which colours are in memory at once.
BAND = 512


def without_glass(reader: SlideReader, area: Area, coarse: TissueMask, picture: LowPower) -> TissueMask:
    """The points of a slide that are not glass, where ``coarse`` says tissue; it leans towards too much, with a rim.

    Glass has the slide's own white, is not magenta, and is so wide that it is neither a fat cell nor a small lumen:
    room for a disc. Beside such it is glass to the pixel. What cannot be read is not taken for it.

    Args:
        reader: the slide, whose ``mpp`` is known.
        area: what is analysed; the answer holds inside of it.
        coarse: what :func:`find_tissue` found in ``picture``; only there is looked.
        picture: the slide at low power, which shows the colour of its glass.

    Returns:
        On a grid of about 4 um. The same for the same slide.
    """
    index, step0 = _level_and_step(reader)
    base, um = reader.levels[0], step0 * reader.mpp
    size = [math.ceil(side / step0 - 1e-6) for side in (base.width, base.height)]
    around0 = SURROUNDINGS_UM / reader.mpp
    left, upper = (max(0, math.floor((start - around0) / step0)) for start in area.bounds0[:2])
    right, lower = (min(side, math.ceil((end + around0) / step0)) for end, side in zip(area.bounds0[2:], size))
    tissue = np.ones(size[::-1], bool)
    if left >= right or upper >= lower:
        return TissueMask(tissue, step0)
    white = glass_colour(picture.pixels, picture.unread)
    glass = np.ones((lower - upper, right - left), bool)
    for top in range(upper, lower, BAND):
        bottom = min(top + BAND, lower)
        looked = coarse.mask(left * step0, top * step0, step0, right - left, bottom - top)
        columns = np.flatnonzero(looked.any(axis=0))
        if len(columns):
            first, end = columns[0], columns[-1] + 1
            seen = low_power_of(reader, index, step0, (left + first, top, left + end, bottom))
            glass[top - upper : bottom - upper, first:end] = _like_glass(seen, white) | ~looked[:, first:end]
    glass = _without_noise(glass)
    tissue[upper:lower, left:right] = ~(glass & _open(glass, um))
    return TissueMask(tissue, step0)


def _level_and_step(reader: SlideReader) -> tuple[int, float]:
    """The level that is read, and level-0 pixels to one of the fine look."""
    base, downsamples = reader.levels[0], [level.downsample for level in reader.levels]
    step0 = max(1.0, FINE_MPP / reader.mpp, max(base.width, base.height) / FINE_SIDE)
    nearest = min(downsamples, key=lambda downsample: abs(downsample / step0 - 1))
    if abs(nearest / step0 - 1) <= AS_IS:
        step0 = nearest
    return level_for(downsamples, step0 * (1 + 1e-9)), step0


def _like_glass(seen: LowPower, white: np.ndarray) -> np.ndarray:
    """bool [h, w]: whether each pixel, by itself, may be glass of the colour ``white``."""
    magenta, _ = magenta_and_ink(seen.pixels, white)
    darkest = (seen.pixels * (255 / white).astype(np.float32)).min(axis=2)
    density = np.log10((255 + DARK) / (darkest + DARK))
    return (magenta < MAGENTA) & (density < DENSITY) & ~seen.unread


def _without_noise(glass: np.ndarray) -> np.ndarray:
    """The mask with pixels of which no neighbour is anything else."""
    height, width = glass.shape
    other, beside = np.pad(~glass, 1), np.zeros_like(glass)
    for row, column in itertools.product(range(3), repeat=2):
        if (row, column) != (1, 1):
            beside |= other[row : row + height, column : column + width]
    return glass | ~beside


def _open(glass: np.ndarray, um: float) -> np.ndarray:
    """Of a mask bool [h, w]: what discs reach that have room in it, and a little more; beyond its edge it goes on."""
    side = max(1, round(BLOCK_UM / um))
    padded = np.pad(glass, [(0, -length % side) for length in glass.shape], mode="edge")
    rows, columns = (length // side for length in padded.shape)
    blocks = padded.reshape(rows, side, columns, side).all(axis=(1, 3))
    middles = ~grown(~blocks, OPEN_UM, um * side)
    reached = grown(middles, OPEN_UM + CORNER_UM, um * side).repeat(side, axis=0).repeat(side, axis=1)
    return reached[: glass.shape[0], : glass.shape[1]]
