"""The strip below a picture of a slide: its scale and what its colours mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lightmuseg.pictures import hatched

# In pixels.
LINE, GAP, SWATCH, TEXT = 28, 12, 16, 14
# A scale bar is at most this share of the picture's width, or 50 pixels.
BAR_SHARE = 1 / 5
# zlib's level: 6, which is usual, takes twice as long and saves a fifteenth
COMPRESSION = 1


@dataclass(frozen=True)
class Entry:
    """A small picture, RGB uint8 [h, w, 3], with words before and after it."""

    pixels: np.ndarray
    after: str
    before: str = ""


def swatch(colour: Sequence[int], name: str) -> Entry:
    """A square of a colour, and what it stands for."""
    return Entry(np.full((SWATCH, SWATCH, 3), colour, np.uint8), name)


def save_with_legend(
    path: Path, picture: Image.Image, um_per_pixel: float, entries: Sequence[Entry], with_unread: bool
) -> None:
    """Write a PNG: the picture and below it its legend, in as many lines as it needs; as wide as the wider of both.

    Args:
        path: of the file.
        picture: of a slide.
        um_per_pixel: of the picture, for the scale bar that comes first.
        entries: between the bar and the stripes of what could not be read.
        with_unread: whether there are any.
    """
    length_um = round_length(um_per_pixel * max(picture.width * BAR_SHARE, 50))
    bar = np.zeros((4, round(length_um / um_per_pixel), 3), np.uint8)
    stripes = hatched(np.zeros((SWATCH, SWATCH, 3), np.uint8), np.ones((SWATCH, SWATCH), bool))
    entries = [Entry(bar, length_text(length_um)), *entries, *([Entry(stripes, "unread")] if with_unread else [])]
    font = ImageFont.load_default(TEXT)
    placed, x, y, width = [], GAP, 0, picture.width
    for entry in entries:
        before, after = (math.ceil(font.getlength(text)) for text in (entry.before, entry.after))
        before += GAP // 2 if before else 0
        needed = before + entry.pixels.shape[1] + GAP // 2 + after + GAP
        if x > GAP and x + needed > width:
            x, y = GAP, y + LINE
        placed.append((x, x + before, y + LINE // 2, entry))
        x += needed
        width = max(width, x)
    both = Image.new("RGB", (width, picture.height + y + LINE), "white")
    both.paste(picture, (0, 0))
    draw = ImageDraw.Draw(both)
    for x_before, x, middle, entry in placed:
        middle += picture.height
        draw.text((x_before, middle), entry.before, fill="black", font=font, anchor="lm")
        high, wide = entry.pixels.shape[:2]
        both.paste(Image.fromarray(entry.pixels), (x, middle - high // 2))
        draw.text((x + wide + GAP // 2, middle), entry.after, fill="black", font=font, anchor="lm")
    both.save(path, compress_level=COMPRESSION)


def round_length(limit: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is at most ``limit``."""
    power = 10.0 ** math.floor(math.log10(limit))
    return max(times * power for times in (1, 2, 5) if times * power <= limit)


def length_text(um: float) -> str:
    """A length in mm, or in um below 0.1 mm.

    >>> length_text(2000), length_text(50)
    ('2 mm', '50 um')
    """
    return f"{um / 1000:g} mm" if um >= 100 else f"{um:g} um"
