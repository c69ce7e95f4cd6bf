"""Where the network is unsure, as one picture of the whole slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.pictures import hatched, pale_grey

from .legend import Entry, save_with_legend, scale_bar, unread_swatch

# Colours of 0, 1/8 ... 1: matplotlib's map "magma" (public domain, CC0), the other way round and without its darkest
# tenth. It is perceptually uniform, and darker is less sure in black and white too.
COLOURS = (
    (252, 253, 191), (254, 202, 141), (253, 148, 103), (240, 95, 94), (202, 62, 114), (156, 46, 127), (110, 30, 129),
    (64, 15, 116), (20, 14, 54),
)  # fmt: skip
OPACITY = 0.75
# Of tissue below the colours, in the middle; the legend's are over it too.
TISSUE_GREY = 212
BAR_WIDTH, BAR_HEIGHT = 160, 16


def write_uncertainty(
    path: Path, thumbnail: np.ndarray, uncertainty: np.ndarray, step0: float, block0: float, mpp0: float,
    unread: np.ndarray | None = None,
) -> Image.Image:  # fmt: skip
    """Write a PNG: mean predictive entropy in colours over a grey picture of the slide, and below it scale and colours.

    Args:
        path: such as ``uncertainty.png``.
        thumbnail: RGB uint8 [h, w, 3] of the whole slide.
        uncertainty: uint8 [rows, columns] of blocks, 0 (certain) to 254 (all classes alike); 255 where nothing was
            analysed, and the slide alone is shown.
        step0: level-0 pixels of the slide to one of the thumbnail.
        block0: level-0 pixels to one of the blocks.
        mpp0: um/px of level 0.
        unread: bool [h, w], where the slide could not be read, which is striped.

    Returns:
        The picture alone.

    Reference:
        Smith and van der Walt, A better default colormap for matplotlib, SciPy 2015.
    """
    height, width = thumbnail.shape[:2]
    rows, columns = (
        np.minimum(((np.arange(side) + 0.5) * step0 / block0).astype(np.int64), last - 1)
        for side, last in zip((height, width), uncertainty.shape)
    )
    table = np.concatenate([colours(np.arange(255) / 254), np.zeros((1, 3), np.float32)])
    small = uncertainty[np.ix_(rows, columns)]
    opacity = np.where(small == 255, np.float32(0), np.float32(OPACITY))[..., None]
    blended = pale_grey(thumbnail) * (1 - opacity) + table[small] * opacity
    unread = np.zeros((height, width), bool) if unread is None else unread
    picture = Image.fromarray(hatched(blended.round().astype(np.uint8), unread))
    bar = np.broadcast_to(shown_colours(BAR_WIDTH), (BAR_HEIGHT, BAR_WIDTH, 3))
    entries = [scale_bar(width, step0 * mpp0), Entry(bar, "1 undecided", "certain 0")]
    if unread.any():
        entries.append(unread_swatch())
    save_with_legend(path, picture, entries)
    return picture


def shown_colours(count: int) -> np.ndarray:
    """What the colours of ``count`` values from 0 to 1 look like over tissue, RGB uint8 [count, 3]."""
    shown = OPACITY * colours(np.linspace(0, 1, count)) + (1 - OPACITY) * TISSUE_GREY
    return shown.round().astype(np.uint8)


def colours(values: np.ndarray) -> np.ndarray:
    """RGB float [N, 3] from 0 to 255 of values [N] from 0 to 1."""
    places = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, places, channel) for channel in zip(*COLOURS)], axis=1).astype(np.float32)
