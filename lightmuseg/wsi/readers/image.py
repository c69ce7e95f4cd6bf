"""Pictures, and pixels in memory, as slides of one level."""

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


class ImageReader(SlideReader):
    """PNG, JPEG, BMP or another picture that Pillow opens, decoded whole."""

    backend, package = "image", "PIL"

    def _opened(self) -> None:
        with warnings.catch_warnings():
            # Pillow warns of half the size that is refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            width, height = image_size(self.path)
            if width * height > MAX_PIXELS:
                raise InputError(
                    f"{self.path}: is {width} x {height} pixels, more than the {MAX_PIXELS / 1e6:.0f} megapixels of a "
                    "picture without tiles; save it as a tiled TIFF."
                )
            self._pixels = read_rgb(self.path)
        self.levels = (Level(width, height, 1.0),)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        return self._pixels[yl : yl + height, xl : xl + width]


class ArrayReader(ImageReader):
    """Pixels that are in memory.

    Args:
        pixels: uint8 [H, W, 3], not copied.
        mpp: um/px.
        workers: threads of :meth:`read_batch`.
        name: what messages call it.

    Raises:
        InputError: where the pixels are not such, or the um/px are missing or absurd.

    >>> with ArrayReader(np.zeros((20, 30, 3), np.uint8), mpp=0.5) as slide:
    ...     slide.read(0, 25, 0, 10, 10)[0, :, 0]
    array([  0,   0,   0,   0,   0, 255, 255, 255, 255, 255], dtype=uint8)
    """

    backend = "array"

    def __init__(self, pixels: np.ndarray, mpp: float, workers: int = 1, name: str = "pixels") -> None:
        path = Path(name)
        self._pixels = np.asarray(pixels)
        self.mpp = checked_mpp(path, mpp, "mpp")
        super().__init__(path, workers)

    def _opened(self) -> None:
        dtype, shape = self._pixels.dtype, self._pixels.shape
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or not self._pixels.size:
            raise InputError(f"{self.path}: {dtype} {list(shape)} is no picture; give uint8 [H, W, 3].")
        self.levels = (Level(shape[1], shape[0], 1.0),)
