"""A picture as a slide of one level."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError

from ..images import image_size, read_rgb
from .reader import Level, SlideReader

# It is held in memory, 3 bytes a pixel.
MAX_PIXELS = 170_000_000


class ImageReader(SlideReader):
    """PNG, JPEG, BMP or another picture that Pillow opens, decoded whole.

    Args:
        path: of the picture.
        workers: threads of :meth:`read_batch`.

    Raises:
        InputError: where it cannot be read whole, is not 8-bit colour, or is too large.
    """

    backend = "image"

    def __init__(self, path: Path, workers: int = 1) -> None:
        self.path = path
        self.workers = workers
        self.stated_mpps = None
        with warnings.catch_warnings():
            # Pillow warns of half the size that is refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image_size(path)
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{path}: is {width} x {height} pixels, more than the {MAX_PIXELS / 1e6:.0f} megapixels of a "
                    "picture without tiles; save it as a tiled TIFF."
                )
            self._pixels = read_rgb(path)
        self.levels = (Level(width, height, 1.0),)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        return self._pixels[yl : yl + height, xl : xl + width]
