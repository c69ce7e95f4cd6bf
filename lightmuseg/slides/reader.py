"""A slide or an image as pixels and um/px."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.data.images import IMAGE_SUFFIXES, read_rgb
from lightmuseg.errors import InputError

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
    slide = _open_slide(path) if suffix in SLIDE_SUFFIXES else None
    found = _mpp_of(slide) if slide is not None else None
    mpp = _checked_mpp(path, mpp if mpp is not None else found)
    width, height = slide.size("XY") if slide is not None else _image_size(path)
    pixels = width * height * max(1.0, (mpp / target_mpp) ** 2)
    if pixels > max_pixels:
        raise InputError(
            f"{path}: {width} x {height} pixels at {mpp} um/px are {pixels / 1e6:.0f} megapixels at {target_mpp} "
            f"um/px, more than the {max_pixels / 1e6:.0f} that are segmented in one piece; cut out a region first."
        )
    return (_read_slide(slide, path) if slide is not None else read_rgb(path)), mpp


def _open_slide(path: Path):
    try:
        from cucim import CuImage
    except ImportError as error:
        raise InputError(f"{path}: slides need cuCIM; pip install cucim-cu13 (Linux x86-64).") from error
    try:
        slide = CuImage(str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cuCIM cannot open it ({_first_line(error)}); copy or export it again.") from error
    if slide.dtype.bits != 8 or slide.shape[-1] not in (3, 4):
        raise InputError(f"{path}: is not 8-bit RGB; convert it to 8-bit RGB first.")
    return slide


def _read_slide(slide, path: Path) -> np.ndarray:
    try:
        return np.asarray(slide.read_region((0, 0), slide.size("XY"), 0))[..., :3]
    except RuntimeError as error:
        raise InputError(f"{path}: cannot be read whole ({_first_line(error)}); copy or export it again.") from error


def _mpp_of(slide) -> float | None:
    """um/px that the file states: Aperio's MPP, or TIFF resolution in centimetres or inches."""
    aperio = slide.metadata.get("aperio", {}).get("MPP")
    if aperio is not None:
        return float(aperio)
    tiff = slide.metadata.get("tiff", {})
    um_per_unit = {"centimeter": 10_000.0, "inch": 25_400.0}.get(str(tiff.get("resolution_unit", "")).lower())
    per_unit = float(tiff.get("x_resolution", 0) or 0)
    return um_per_unit / per_unit if um_per_unit and per_unit else None


def _checked_mpp(path: Path, mpp: float | None) -> float:
    if mpp is None:
        raise InputError(f"{path}: does not say its um per pixel; give it with --mpp, such as --mpp 0.25.")
    if not (math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise InputError(
            f"{path}: {mpp} um per pixel is outside {MPP_RANGE[0]} to {MPP_RANGE[1]}; give the right value with --mpp."
        )
    return mpp


def _image_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
