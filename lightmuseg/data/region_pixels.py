"""Pixels and codes of a picture at another um/px."""

from __future__ import annotations

import numpy as np

from lightmuseg.wsi.readers.image import ArrayReader
from lightmuseg.wsi.resampling import read_resampled, resampled_box


def resampled_size(size: tuple[int, int], mpp: float, target: float | None) -> tuple[int, int]:
    """Width and height of a picture of ``mpp`` um/px at ``target`` um/px, in whole pixels as a slide's are.

    >>> resampled_size((1000, 700), 0.3, 0.5), resampled_size((1000, 700), 0.3, None)
    ((600, 420), (1000, 700))
    """
    width, height = (n if target is None else max(1, round(n * mpp / target)) for n in size)
    return width, height


def resampled_codes(codes: np.ndarray, mpp: float, target: float | None) -> np.ndarray:
    """Codes [H, W] of ``mpp`` um/px at ``target`` um/px: each that of the pixel in which its middle lies."""
    height, width = codes.shape
    size = resampled_size((width, height), mpp, target)
    if target is None or size == (width, height):
        return codes
    xs, ys = (((np.arange(n) + 0.5) * target / mpp).astype(int) for n in size)
    return codes[np.minimum(ys, height - 1)[:, None], np.minimum(xs, width - 1)]


def resampled_pixels(pixels: np.ndarray, mpp: float, target: float | None) -> np.ndarray:
    """Pixels of ``mpp`` um/px at ``target`` um/px, as inference resamples a slide: Lanczos down, bicubic up."""
    height, width = pixels.shape[:2]
    size = resampled_size((width, height), mpp, target)
    if target is None or size == (width, height):
        return pixels
    reader, step = ArrayReader(pixels, mpp), target / mpp
    box = resampled_box((0, 0), (size[0] * step, size[1] * step), size, reader.levels[0])
    return read_resampled(reader, 0, box)[0]
