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
_UM_PER_UNIT = {tifffile.RESUNIT.CENTIMETER: 10_000.0, tifffile.RESUNIT.INCH: 25_400.0}
_UM_PER_OME_UNIT = {"nm": 1e-3, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6}
# What tifffile raises of a file that is no TIFF or a damaged one.
UNREADABLE_TAGS = (
    tifffile.TiffFileError, OSError, IndexError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip
# Their decoders turn YCbCr into RGB; in others it is another picture.
_YCBCR = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.APERIO_JP2000_YCBC)


def raise_bug(error: BaseException) -> None:
    """Raise an AttributeError again that does not come from within tifffile: it is a bug here, not a damaged file."""
    trace, frames = error.__traceback__, set()
    while trace is not None:
        frames.add(trace.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        trace = trace.tb_next
    if isinstance(error, AttributeError) and "tifffile" not in frames:
        raise error


def first_page(path: Path) -> tifffile.TiffPage:
    """The tags of level 0, which say more truly than cuCIM what its pixels are.

    Raises:
        InputError: where the file is no TIFF, or its pixels are not 8-bit RGB.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
    except UNREADABLE_TAGS as error:
        raise InputError(f"{path}: not a TIFF that can be read ({first_line(error)}); export it again.") from error
    check_pixels(path, page)
    return page


def check_pixels(path: Path, page: tifffile.TiffPage) -> None:
    """Let pass only 8-bit RGB, or JPEG's YCbCr, in one plane.

    Raises:
        InputError: for other pixels.
    """
    colour = (tifffile.PHOTOMETRIC.RGB, *([tifffile.PHOTOMETRIC.YCBCR] if page.compression in _YCBCR else []))
    plain = page.planarconfig == tifffile.PLANARCONFIG.CONTIG and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
    if page.bitspersample != 8 or page.samplesperpixel != 3 or page.photometric not in colour or not plain:
        photometric = getattr(page.photometric, "name", page.photometric)
        planes = "" if page.planarconfig == tifffile.PLANARCONFIG.CONTIG else " in planes of their own"
        raise InputError(
            f"{path}: is {page.bitspersample}-bit {photometric} with {page.samplesperpixel} channels{planes}, not "
            "8-bit RGB; convert it to 8-bit RGB first."
        )


def stated_mpp(page: tifffile.TiffPage) -> float | None:
    """um/px that the file states, along x; None where it does not."""
    stated = stated_mpps(page)
    return None if stated is None else stated[0]


def stated_mpps(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """um/px along x and y: Aperio's or OME's, or the resolution per centimetre or inch; None where there are none."""
    aperio = re.search(r"\|\s*MPP\s*=\s*(\d*\.?\d+)\s*(?:\||$)", page.description) if page.is_svs else None
    if aperio is not None:
        return float(aperio[1]), float(aperio[1])
    ome = _ome_mpps(page.description) if page.is_ome else None
    if ome is not None:
        return ome
    um_per_unit = _UM_PER_UNIT.get(page.tags.valueof("ResolutionUnit"))
    tags = [page.tags.get(f"{axis}Resolution") for axis in "XY"]
    if um_per_unit is None or None in tags or not all(all(tag.value) for tag in tags):
        return None
    mpp_x, mpp_y = (um_per_unit * tag.value[1] / tag.value[0] for tag in tags)
    # 72 or 300 per inch are meant for screens and paper
    return (mpp_x, mpp_y) if max(mpp_x, mpp_y) <= MPP_RANGE[1] else None


def _ome_mpps(description: str) -> tuple[float, float] | None:
    """PhysicalSizeX and PhysicalSizeY of the first image, in um."""
    image = re.search(r"<Pixels\b[^>]*>", description)
    sizes = []
    for axis in "XY":
        size = re.search(rf'\bPhysicalSize{axis}="(\d*\.?\d+(?:[eE][+-]?\d+)?)"', image[0]) if image else None
        unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]*)"', image[0]) if image else None
        um = _UM_PER_OME_UNIT.get(unit[1] if unit else "um")
        if size is None or um is None:
            return None
        sizes.append(float(size[1]) * um)
    return sizes[0], sizes[1]


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
