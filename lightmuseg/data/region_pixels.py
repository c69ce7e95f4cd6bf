"""An annotated region's pixels and codes, at the um/px of its dataset."""

from __future__ import annotations

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import image_size, read_rgb
from lightmuseg.wsi.readers.image import ArrayReader
from lightmuseg.wsi.resampling import read_resampled, resampled_box

from .bcss import Region, read_mask


def region_size(region: Region, mpp: float | None) -> tuple[int, int]:
    """Width and height of a region at ``mpp`` um/px, from its files' headers; None for its picture's own um/px."""
    width, height = image_size(region.image or region.mask)
    return resampled_size((width, height), region.mpp, mpp)


def resampled_size(size: tuple[int, int], mpp: float, target: float | None) -> tuple[int, int]:
    """Width and height of a picture of ``mpp`` um/px at ``target`` um/px, in whole pixels as a slide's are.

    >>> resampled_size((1000, 700), 0.3, 0.5), resampled_size((1000, 700), 0.3, None)
    ((600, 420), (1000, 700))
    """
    width, height = (n if target is None else max(1, round(n * mpp / target)) for n in size)
    return width, height


def read_region(region: Region, coding: str, mpp: float | None) -> tuple[np.ndarray | None, np.ndarray]:
    """A region's pixels, uint8 [H, W, 3], and BCSS codes, uint8 [H, W], at ``mpp`` um/px.

    Args:
        region: without an image it has no pixels.
        coding: of its mask, a key of :data:`.bcss.MASK_CODINGS`.
        mpp: None for the picture's own um/px.

    Raises:
        InputError: for a file that cannot be read, or where image and mask are of two sizes.
    """
    codes = read_mask(region.mask, coding)
    image = None if region.image is None else read_rgb(region.image)
    if image is not None and image.shape[:2] != codes.shape:
        raise InputError(
            f"{region.mask}: is {codes.shape[1]} x {codes.shape[0]} pixels, its image {region.image.name} is "
            f"{image.shape[1]} x {image.shape[0]}; they must be of one size."
        )
    codes = resampled_codes(codes, region.mpp, mpp)
    return None if image is None else _resampled_pixels(image, region.mpp, mpp), codes


def resampled_codes(codes: np.ndarray, mpp: float, target: float | None) -> np.ndarray:
    """Codes [H, W] of ``mpp`` um/px at ``target`` um/px: each that of the pixel in which its middle lies."""
    height, width = codes.shape
    size = resampled_size((width, height), mpp, target)
    if target is None or size == (width, height):
        return codes
    xs, ys = (((np.arange(n) + 0.5) * target / mpp).astype(int) for n in size)
    return codes[np.minimum(ys, height - 1)[:, None], np.minimum(xs, width - 1)]


def _resampled_pixels(pixels: np.ndarray, mpp: float, target: float | None) -> np.ndarray:
    """Pixels of ``mpp`` um/px at ``target`` um/px, as inference resamples a slide: Lanczos down, bicubic up."""
    height, width = pixels.shape[:2]
    size = resampled_size((width, height), mpp, target)
    if target is None or size == (width, height):
        return pixels
    reader, step = ArrayReader(pixels, mpp), target / mpp
    box = resampled_box((0, 0), (size[0] * step, size[1] * step), size, reader.levels[0])
    return read_resampled(reader, 0, box)[0]
