"""The whole slide as one picture with its classes over it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightmuseg.classes import UNREAD, palette_of
from lightmuseg.pictures import OPACITY, hatched, overlay

from .legend import save_with_legend, scale_bar, swatch, unread_swatch

# pixels of the longer side of the picture of a slide
OVERLAY_SIDE = 2000
BAND = 256


def write_overlay(path: Path, thumbnail: np.ndarray, class_map: Any, step0: float) -> np.ndarray:
    """Write a PNG: a small picture of the slide under its classes, and below it a scale bar and the classes' names.

    Args:
        path: such as ``overlay.png``.
        thumbnail: RGB uint8 [h, w, 3] of the whole slide.
        class_map: has ``width``, ``height``, ``mpp``, ``downsample``, ``class_names`` and ``bands(height)``, which
            gives uint8 [height, width] from the top; 255 is unread and shown striped.
        step0: level-0 pixels of the slide to one of the thumbnail.

    Returns:
        The class of each pixel of the thumbnail, uint8 [h, w].
    """
    height, width = thumbnail.shape[:2]
    classes = _sampled(class_map, height, width, step0 / class_map.downsample)
    picture = classes_over(thumbnail, classes, class_map.class_names, max(height, width))
    names = dict(zip(class_map.class_names, palette_of(class_map.class_names)[1:]))
    entries = [swatch(colour, name) for name, colour in names.items()]
    if (classes == UNREAD).any():
        entries.append(unread_swatch())
    bar = scale_bar(width, class_map.mpp * step0 / class_map.downsample)
    save_with_legend(path, picture, [bar, *entries])
    return classes


def classes_over(
    pixels: np.ndarray, classes: np.ndarray, class_names: Sequence[str], side: int, opacity: float = OPACITY
) -> Image.Image:
    """As :func:`lightmuseg.pictures.overlay`; what could not be read (255) is striped."""
    picture = overlay(pixels, classes, class_names, side, opacity)
    small = np.asarray(Image.fromarray(classes).resize(picture.size, Image.Resampling.NEAREST))
    return Image.fromarray(hatched(np.asarray(picture), small == UNREAD))


def _sampled(class_map: Any, height: int, width: int, step_out: float) -> np.ndarray:
    """The class under the middle of each pixel of a thumbnail whose pixels are ``step_out`` of the map's."""
    rows_out, columns_out = (
        np.minimum(((np.arange(side) + 0.5) * step_out).astype(np.int64), last - 1)
        for side, last in ((height, class_map.height), (width, class_map.width))
    )
    classes = np.empty((height, width), np.uint8)
    top_out = 0
    for band in class_map.bands(BAND):
        inside = (rows_out >= top_out) & (rows_out < top_out + len(band))
        classes[inside] = band[np.ix_(rows_out[inside] - top_out, columns_out)]
        top_out += len(band)
    return classes
