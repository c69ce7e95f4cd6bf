"""The whole slide as one picture with its classes over it."""

from __future__ import annotations

from pathlib import Path

from lightmuseg.classes import UNREAD, palette_of
from lightmuseg.pictures import overlay

from .legend import save_with_legend, swatch
from .segmented import SegmentedSlide

# pixels of the longer side of the picture of a slide
OVERLAY_SIDE = 2000


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write a PNG: the picture of the slide under its classes, and below it a scale bar and the classes' names.

    What could not be read is striped.
    """
    names = slide.class_map.class_names
    picture = overlay(slide.picture, slide.classes, names, max(slide.picture.shape), striped=True)
    entries = [swatch(colour, name) for name, colour in dict(zip(names, palette_of(names)[1:])).items()]
    save_with_legend(path, picture, slide.um_per_pixel, entries, bool((slide.classes == UNREAD).any()))
