"""Where the network is unsure, as one picture of the whole slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.classes import UNREAD
from lightmuseg.engine.entropy import LEVELS, UNKNOWN
from lightmuseg.pictures import blend, hatched, pale_grey

from .legend import Entry, save_with_legend
from .segmented import SegmentedSlide

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


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write a PNG: mean predictive entropy in colours over a grey picture of the slide, and below it scale and colours.

    Where there is no tissue the slide alone is shown; what could not be read is striped.

    Reference:
        Smith and van der Walt, A better default colormap for matplotlib, SciPy 2015.
    """
    bar = np.broadcast_to(shown_colours(BAR_WIDTH), (BAR_HEIGHT, BAR_WIDTH, 3))
    entries = [Entry(bar, "1 undecided", "certain 0")]
    save_with_legend(path, picture(slide), slide.um_per_pixel, entries, bool((slide.classes == UNREAD).any()))


def picture(slide: SegmentedSlide) -> Image.Image:
    """The picture without its legend."""
    table = np.concatenate([colours(np.arange(LEVELS + 1) / LEVELS), np.zeros((1, 3), np.float32)])
    opacities = np.full(256, OPACITY, np.float32)
    opacities[UNKNOWN] = 0
    blended = blend(pale_grey(slide.picture), slide.uncertainty, table, opacities)
    return Image.fromarray(hatched(blended, slide.classes == UNREAD))


def shown_colours(count: int) -> np.ndarray:
    """What the colours of ``count`` values from 0 to 1 look like over tissue, RGB uint8 [count, 3]."""
    shown = OPACITY * colours(np.linspace(0, 1, count)) + (1 - OPACITY) * TISSUE_GREY
    return shown.round().astype(np.uint8)


def colours(values: np.ndarray) -> np.ndarray:
    """RGB float [N, 3] from 0 to 255 of values [N] from 0 to 1."""
    places = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(values, places, channel) for channel in zip(*COLOURS)], axis=1).astype(np.float32)
