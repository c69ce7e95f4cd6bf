"""Draws class maps over pictures; the colours are those of classes.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.classes import OTHER, UNREAD, UNREAD_COLOUR, colour_table, palette_of

# What could not be read has stripes of that and of this colour, of so many pixels.
STRIPE_COLOUR, STRIPE_WIDTH = (60, 60, 60), 4
OPACITY = 0.4
# Of white in a picture that lies grey below colours.
PALE = 0.5
GAP = 12


def save_class_map(path: Path, classes: np.ndarray, class_names: Sequence[str]) -> None:
    """Write class indices [H, W] as a PNG of indices with the classes' colours as its palette."""
    image = Image.fromarray(classes).convert("P")
    image.putpalette([value for colour in palette_of(class_names) for value in colour])
    image.save(path, optimize=True)


def overlay(
    pixels: np.ndarray, classes: np.ndarray, class_names: Sequence[str], side: int, opacity: float = OPACITY,
    striped: bool = False,
) -> Image.Image:  # fmt: skip
    """A picture with its classes in transparent colour over it.

    Args:
        pixels: RGB [H, W, 3].
        classes: class indices [H, W]; 0 is left as it is.
        class_names: of the indices from 1.
        side: the longer side of the result is at most this many pixels.
        opacity: of the colours, 0 to 1.
        striped: 255, what could not be read or is not annotated, is striped, not in transparent grey.
    """
    picture = Image.fromarray(pixels)
    picture.thumbnail((side, side))
    small = np.asarray(Image.fromarray(classes).resize(picture.size, Image.Resampling.NEAREST))
    opacities = np.full(256, opacity, np.float32)
    opacities[OTHER] = 0
    blended = blend(np.asarray(picture), small, colour_table(class_names), opacities)
    return Image.fromarray(hatched(blended, small == UNREAD) if striped else blended)


def blend(pixels: np.ndarray, indices: np.ndarray, colours: np.ndarray, opacities: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] under the colour of each index uint8 [H, W]: RGB [256, 3] and opacities float32 [256]."""
    share = opacities[indices][..., None]
    return (pixels * (1 - share) + colours[indices] * share).round().astype(np.uint8)


def stripes(height: int, width: int) -> np.ndarray:
    """bool [height, width], True in every other one of the slanted stripes that mark what could not be read."""
    rows, columns = np.ogrid[:height, :width]
    return (rows + columns) // STRIPE_WIDTH % 2 == 1


def hatched(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] with stripes where bool [H, W] is set; the same array where that is nowhere."""
    if not where.any():
        return pixels
    striped = np.where(stripes(*where.shape)[..., None], np.uint8(STRIPE_COLOUR), np.uint8(UNREAD_COLOUR))
    return np.where(where[..., None], striped, pixels)


def pale_grey(pixels: np.ndarray) -> np.ndarray:
    """RGB uint8 [H, W, 3] in grey and paler, so that below colours only these have a meaning."""
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    pale = (255 - PALE * (255 - grey)).round().astype(np.uint8)
    return np.repeat(pale[..., None], 3, axis=2)


def compare(
    pixels: np.ndarray, truth: np.ndarray, predicted: np.ndarray, class_names: Sequence[str], side: int
) -> Image.Image:
    """A picture, its truth and its prediction beside one another; see :func:`overlay` for the arguments."""
    maps = (np.zeros_like(truth), truth, predicted)
    panels = [np.asarray(overlay(pixels, classes, class_names, side)) for classes in maps]
    gap = np.full((len(panels[0]), GAP, 3), 255, np.uint8)
    return Image.fromarray(np.hstack([panels[0], gap, panels[1], gap, panels[2]]))
