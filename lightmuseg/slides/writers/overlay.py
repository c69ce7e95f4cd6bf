"""The whole slide as one picture with its classes over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightmuseg.data.pictures import UNANNOTATED, overlay, palette_of

from .pyramid import UNREAD

BAND = 256
# Of the strip below the picture, in pixels.
LINE, GAP, SWATCH, TEXT = 28, 12, 16, 14


def write_overlay(path: Path, thumbnail: np.ndarray, class_map: Any, step0: float) -> None:
    """Write a PNG: a small picture of the slide under its classes, and below it a scale bar and the classes' names.

    Args:
        path: such as ``overlay.png``.
        thumbnail: RGB uint8 [h, w, 3] of the whole slide.
        class_map: has ``width``, ``height``, ``mpp``, ``downsample``, ``class_names`` and ``bands(height)``, which
            gives uint8 [height, width] from the top; 255 is unread and shown grey.
        step0: level-0 pixels of the slide to one of the thumbnail.
    """
    height, width = thumbnail.shape[:2]
    classes = _sampled(class_map, height, width, step0 / class_map.downsample)
    picture = overlay(thumbnail, classes, class_map.class_names, max(height, width))
    names = dict(zip(class_map.class_names, palette_of(class_map.class_names)[1:]))
    if (classes == UNREAD).any():
        names["unread"] = UNANNOTATED
    strip = _legend(width, names, class_map.mpp * step0 / class_map.downsample)
    both = Image.new("RGB", (strip.width, height + strip.height), "white")
    both.paste(picture, (0, 0))
    both.paste(strip, (0, height))
    both.save(path)


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


def _legend(width: int, names: dict[str, Sequence[int]], um_per_pixel: float) -> Image.Image:
    """A strip of at least ``width`` pixels: a scale bar, then a swatch and a name for each class, in as many lines as
    they need."""
    font = ImageFont.load_default(TEXT)
    length_um = _round_length(um_per_pixel * max(width / 5, 50))
    swatches = [(round(length_um / um_per_pixel), 4, (0, 0, 0), f"{length_um / 1000:g} mm")]
    swatches += [(SWATCH, SWATCH, colour, name) for name, colour in names.items()]
    placed, x, y = [], GAP, 0
    for swatch in swatches:
        needed = swatch[0] + GAP // 2 + math.ceil(font.getlength(swatch[3])) + GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + LINE
        placed.append((x, y + LINE // 2, *swatch))
        x += needed
        width = max(width, x)
    strip = Image.new("RGB", (width, y + LINE), "white")
    draw = ImageDraw.Draw(strip)
    for x, middle, wide, high, colour, text in placed:
        draw.rectangle((x, middle - high // 2, x + wide - 1, middle + high // 2 - 1), fill=tuple(colour))
        draw.text((x + wide + GAP // 2, middle), text, fill="black", font=font, anchor="lm")
    return strip


def _round_length(limit: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most ``limit``."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(times * power for times in (1, 2, 5) if times * power <= limit)
