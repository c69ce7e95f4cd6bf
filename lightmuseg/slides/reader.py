"""A slide or an image as pixels and um/px."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightmuseg.data.images import IMAGE_SUFFIXES, image_size, read_rgb
from lightmuseg.data.tiff import SLIDE_SUFFIXES, checked_mpp, first_page, stated_mpp
from lightmuseg.errors import InputError, first_line


def read_level0(path: Path, mpp: float | None, target_mpp: float, max_pixels: int) -> tuple[np.ndarray, float]:
    """The whole slide at level 0.

    Args:
        path: SVS, TIFF, PNG, JPEG or BMP.
        mpp: um/px of level 0; None to take it from the file.
        target_mpp: um/px it will be resampled to.
        max_pixels: limit of the pixels at ``target_mpp`` and at level 0.

    Returns:
        uint8 [H, W, 3], and um/px of level 0.

    Raises:
        InputError: for a file that cannot be read, too large a slide, or um/px that are missing or absurd.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix not in (*SLIDE_SUFFIXES, *IMAGE_SUFFIXES):
        known = ", ".join(dict.fromkeys((*SLIDE_SUFFIXES, *IMAGE_SUFFIXES)))
        raise InputError(f"{path}: slides and images end in {known}.")
    page = first_page(path) if suffix in SLIDE_SUFFIXES else None
    mpp = checked_mpp(path, mpp if mpp is not None or page is None else stated_mpp(page), "--mpp")
    width, height = (page.imagewidth, page.imagelength) if page is not None else image_size(path)
    pixels = width * height * max(1.0, (mpp / target_mpp) ** 2)
    if pixels > max_pixels:
        raise InputError(
            f"{path}: {width} x {height} pixels at {mpp} um/px are {pixels / 1e6:.0f} megapixels at {target_mpp} "
            f"um/px, more than the {max_pixels / 1e6:.0f} that are segmented in one piece; cut out a region first."
        )
    # cuCIM is for tiled files; of others it gives black where they are cut short
    return (_read_slide(path) if page is not None and page.is_tiled else read_rgb(path)), mpp


def _read_slide(path: Path) -> np.ndarray:
    try:
        from cucim import CuImage
    except ImportError as error:
        raise InputError(f"{path}: slides need cuCIM; pip install cucim-cu13 (Linux x86-64).") from error
    try:
        slide = CuImage(str(path))
        return np.asarray(slide.read_region((0, 0), slide.size("XY"), 0))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read whole ({first_line(error)}); copy or export it again.") from error
