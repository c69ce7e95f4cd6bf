"""What the tags of a slide's TIFF say: the kind of its pixels and their um/px."""

from __future__ import annotations

import lzma
import math
import re
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import tifffile
from PIL import Image

from lightmuseg.errors import InputError

from .ome_xml import MAX_CHARACTERS, OmeImage

SLIDE_SUFFIXES = (".svs", ".tif", ".tiff")
# Of a TIFF and a BigTIFF, of either byte order.
_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# um/px that a microscope's scanner can mean; anything else is a wrong unit or a wrong entry.
MPP_RANGE = (0.05, 10.0)
_UM_PER_UNIT = {tifffile.RESUNIT.CENTIMETER: 10_000.0, tifffile.RESUNIT.INCH: 25_400.0}
_UM_PER_IMAGEJ_UNIT = {
    "nm": 1e-3, "um": 1.0, "\u00b5m": 1.0, "\u03bcm": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0,
    "micrometre": 1.0, "micrometers": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0, "in": 25_400.0,
}  # fmt: skip
# Aperio writes the number as the scanner's computer does, in some countries with a comma.
_APERIO_MPP = re.compile(r"\|\s*MPP\s*=\s*(\d*[.,]?\d+)\s*(?:\||$)")
_IMAGEJ_UNIT = re.compile(r"^unit=(.+)$", re.MULTILINE)
# What tifffile raises of a file that is no TIFF or a damaged one.
UNREADABLE_TAGS = (
    tifffile.TiffFileError, OSError, IndexError, ValueError, KeyError, TypeError, AttributeError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip
# What decoders raise of damaged pixels: imagecodecs' and simplejpeg's errors derive from RuntimeError and ValueError,
# the standard library's, which tifffile falls back on, are their own.
UNDECODABLE = (
    *UNREADABLE_TAGS, RuntimeError, EOFError, SyntaxError, Image.DecompressionBombError, zlib.error, lzma.LZMAError,
)  # fmt: skip
# Their decoders turn YCbCr into RGB; in others it is another picture.
_YCBCR = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.APERIO_JP2000_YCBC)


def is_tiff(path: Path) -> bool:
    """Whether the first bytes of a file are a TIFF's."""
    with open(path, "rb") as file:
        return file.read(4) in _STARTS


def raise_bug(error: BaseException) -> None:
    """Raise an AttributeError again that does not come from within tifffile: it is a bug here, not a damaged file."""
    trace, frames = error.__traceback__, set()
    while trace is not None:
        frames.add(trace.tb_frame.f_globals.get("__name__", "").partition(".")[0])
        trace = trace.tb_next
    if isinstance(error, AttributeError) and "tifffile" not in frames:
        raise error


def check_pixels(path: Path, pages: Sequence[tifffile.TiffPage]) -> None:
    """Raise an InputError for other pixels than :func:`is_rgb` has."""
    page = pages[0]
    if not is_rgb(pages):
        photometric = getattr(page.photometric, "name", page.photometric)
        raise InputError(
            f"{path}: is {page.bitspersample}-bit {photometric} with {page.samplesperpixel} channels, not 8-bit RGB; "
            "convert it to 8-bit RGB first."
        )


def is_rgb(pages: Sequence[tifffile.TiffPage]) -> bool:
    """Whether a page, or three of one channel each, are 8-bit RGB, with or without alpha, or JPEG's YCbCr."""
    if any(page.bitspersample != 8 or page.sampleformat != tifffile.SAMPLEFORMAT.UINT for page in pages):
        return False
    if len(pages) == 3:
        grey = (1, tifffile.PHOTOMETRIC.MINISBLACK)
        return all((page.samplesperpixel, page.photometric) == grey for page in pages)
    (page,) = pages
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR:
        return page.samplesperpixel == 3 and is_contiguous(page) and page.compression in _YCBCR
    return page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel in (3, 4)


def size_of(page: tifffile.TiffPage) -> tuple[int, int]:
    """Width and height of a page in pixels."""
    return page.imagewidth, page.imagelength


def is_contiguous(page: tifffile.TiffPage) -> bool:
    """Whether the channels of a pixel lie side by side."""
    return page.samplesperpixel == 1 or page.planarconfig == tifffile.PLANARCONFIG.CONTIG


def description_of(page: tifffile.TiffPage) -> str:
    """A page's ImageDescription, also where it is in UTF-16."""
    tag = page.tags.get("ImageDescription")
    if tag is None or not isinstance(tag.value, (str, bytes)) or tag.count > MAX_CHARACTERS:
        return page.description
    start = tag.value[:2].encode("cp1252", "replace") if isinstance(tag.value, str) else tag.value[:2]
    if start not in (b"\xff\xfe", b"\xfe\xff"):
        return page.description
    file = page.parent.filehandle
    file.seek(tag.valueoffset)
    return file.read(tag.count).decode("utf-16", "replace")


def stated_mpps(page: tifffile.TiffPage, ome: OmeImage | None = None) -> tuple[float, float] | None:
    """um/px along x and y of the finest level: OME's, Aperio's or ImageJ's, or the resolution; None without."""
    if ome is not None and ome.mpps is not None:
        return ome.mpps
    aperio = _APERIO_MPP.search(page.description) if page.is_svs else None
    if aperio is not None:
        mpp = float(aperio[1].replace(",", "."))
        return mpp, mpp
    um_per_unit = _UM_PER_UNIT.get(page.tags.valueof("ResolutionUnit"))
    unit = _IMAGEJ_UNIT.search(page.description) if page.description.startswith("ImageJ=") else None
    if unit is not None:
        um_per_unit = _UM_PER_IMAGEJ_UNIT.get(unit[1].strip().lower().replace("\\u00b5", "\u00b5"))
    tags = [page.tags.get(f"{axis}Resolution") for axis in "XY"]
    if um_per_unit is None or None in tags or not all(all(tag.value) for tag in tags):
        return None
    mpp_x, mpp_y = (um_per_unit * tag.value[1] / tag.value[0] for tag in tags)
    # 72 or 300 per inch are meant for screens and paper
    return (mpp_x, mpp_y) if max(mpp_x, mpp_y) <= MPP_RANGE[1] else None


def checked_mpp(path: Path, mpp: float | None, option: str) -> float:
    """``mpp`` where it can be the um/px of a file; ``option`` is by what a user can give it, such as ``--mpp``.

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
