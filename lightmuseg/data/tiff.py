"""What the tags of a slide's TIFF say: the kind of its pixels and their um/px."""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import tifffile

from lightmuseg.errors import InputError, first_line

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff")
# um/px that a microscope's scanner can mean; anything else is a wrong unit or a wrong entry.
MPP_RANGE = (0.05, 10.0)


def first_page(path: Path) -> tifffile.TiffPage:
    """The tags of level 0, which say more truly than cuCIM what its pixels are.

    Raises:
        InputError: where the file is no TIFF, or its pixels are not 8-bit RGB.
    """
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


def stated_mpp(page: tifffile.TiffPage) -> float | None:
    """um/px that the file states: Aperio's MPP, or the resolution per centimetre or inch; None where it does not."""
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


def checked_mpp(path: Path, mpp: float | None, option: str) -> float:
    """``mpp`` where it can be one.

    Args:
        path: the file it is of.
        mpp: um/px; None where nobody said.
        option: by which a user can give it, such as ``--mpp``.

    Raises:
        InputError: where it is missing or absurd.
    """
    if mpp is None:
        raise InputError(f"{path}: does not say its um per pixel; give it with {option}, such as {option} 0.25.")
    if not (math.isfinite(mpp) and MPP_RANGE[0] <= mpp <= MPP_RANGE[1]):
        raise InputError(
            f"{path}: {mpp} um per pixel is outside {MPP_RANGE[0]} to {MPP_RANGE[1]}; "
            f"give the right value with {option}."
        )
    return mpp
