"""A slide or an image as pixels and um/px."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.data.images import IMAGE_SUFFIXES, image_size, read_rgb
from lightmuseg.errors import InputError, first_line

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff")
# um/px that a microscope's scanner can mean; anything else is a wrong unit or a wrong entry.
MPP_RANGE = (0.05, 10.0)


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
    page = _first_page(path) if suffix in SLIDE_SUFFIXES else None
    mpp = _checked_mpp(path, mpp if mpp is not None or page is None else _mpp_of(page))
    width, height = (page.imagewidth, page.imagelength) if page is not None else image_size(path)
    pixels = width * height * max(1.0, (mpp / target_mpp) ** 2)
    if pixels > max_pixels:
        raise InputError(
            f"{path}: {width} x {height} pixels at {mpp} um/px are {pixels / 1e6:.0f} megapixels at {target_mpp} "
            f"um/px, more than the {max_pixels / 1e6:.0f} that are segmented in one piece; cut out a region first."
        )
    # cuCIM is for tiled files; of others it gives black where they are cut short
    return (_read_slide(path) if page is not None and page.is_tiled else read_rgb(path)), mpp


def _first_page(path: Path) -> tifffile.TiffPage:
    """The first page's tags, which say more truly than cuCIM what its pixels are."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
    except (tifffile.TiffFileError, OSError, IndexError, ValueError, KeyError, struct.error) as error:
        raise InputError(f"{path}: not a TIFF that can be read ({first_line(error)}); export it again.") from error
    colour = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR)
    if page.bitspersample != 8 or page.samplesperpixel != 3 or page.photometric not in colour:
        photometric = getattr(page.photometric, "name", page.photometric)
        raise InputError(
            f"{path}: is {page.bitspersample}-bit {photometric} with {page.samplesperpixel} channels, not 8-bit RGB; "
            "convert it to 8-bit RGB first."
        )
    return page


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


def _mpp_of(page: tifffile.TiffPage) -> float | None:
    """um/px that the file states: Aperio's MPP, or the resolution per centimetre or inch."""
    aperio = re.search(r"\|\s*MPP\s*=\s*(\d*\.?\d+)\s*(?:\||$)", page.description) if page.is_svs else None
    if aperio is not None:
        return float(aperio[1])
    units = {tifffile.RESUNIT.CENTIMETER: 10_000.0, tifffile.RESUNIT.INCH: 25_400.0}
    tag = page.tags.get("XResolution")
    um_per_unit = units.get(page.tags.valueof("ResolutionUnit"))
    if um_per_unit is None or tag is None or not all(tag.value):
        return None
    mpp = um_per_unit * tag.value[1] / tag.value[0]
    # 72 or 300 per inch are meant for screens and paper
    return mpp if mpp <= MPP_RANGE[1] else None


def _checked_mpp(path: Path, mpp: float | None) -> float:
    if mpp is None:
        raise InputError(f"{path}: does not say its um per pixel; give it with --mpp, such as --mpp 0.25.")
    if not (math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise InputError(
            f"{path}: {mpp} um per pixel is outside {MPP_RANGE[0]} to {MPP_RANGE[1]}; give the right value with --mpp."
        )
    return mpp
