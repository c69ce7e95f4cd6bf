"""Pixels in memory, and pictures that are held there, as slides of one level."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError

from ..images import image_size, read_rgb
from ..tiff import checked_mpp
from .reader import Level, SlideReader

# It is held in memory, 3 bytes a pixel.
MAX_PIXELS = 170_000_000


class ArrayReader(SlideReader):
    """Pixels that are in memory.

    Args:
        pixels: uint8 [H, W, 3], not copied.
        mpp: um/px.
        workers: threads of :meth:`read_batch`.
        path: what messages call it.

    Raises:
        InputError: where the pixels are not such, or the um/px are missing or absurd.

    >>> with ArrayReader(np.zeros((20, 30, 3), np.uint8), mpp=0.5) as slide:
    ...     slide.read(0, 25, 0, 10, 10)[0, :, 0]
    array([  0,   0,   0,   0,   0, 255, 255, 255, 255, 255], dtype=uint8)
    """

    backend = "array"

    def __init__(self, pixels: np.ndarray, mpp: float, workers: int = 1, path: Path = Path("pixels")) -> None:
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
            raise InputError(f"{path}: {pixels.dtype} {list(pixels.shape)} is no picture; give uint8 [H, W, 3].")
        self.path, self.workers = path, workers
        self.mpp = checked_mpp(path, mpp, "mpp")
        self.stated_mpps = (mpp, mpp)
        self._hold(pixels)

    def _hold(self, pixels: np.ndarray) -> None:
        self._pixels = pixels
        self.levels = (Level(pixels.shape[1], pixels.shape[0], 1.0),)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        return self._pixels[yl : yl + height, xl : xl + width]


class ImageReader(ArrayReader):
    """PNG, JPEG, BMP or another picture that Pillow opens, decoded whole.

    Args:
        path: of the picture.
        workers: threads of :meth:`read_batch`.

    Raises:
        InputError: where it cannot be read whole, is not 8-bit colour, or is too large.
    """

    backend = "image"

    def __init__(self, path: Path, workers: int = 1) -> None:
        self.path, self.workers = path, workers
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
            self._hold(read_rgb(path))
