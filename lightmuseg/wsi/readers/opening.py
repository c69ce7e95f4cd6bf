"""What opens which slide."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from lightmuseg.errors import InputError

from ..tiff import checked_mpp, is_tiff
from .cucim import CuCIMReader
from .dicom import DicomReader
from .image import ImageReader
from .openslide import PLAIN, OpenSlideReader, format_of
from .reader import NotForThisReader, SlideReader
from .tifffile import TifffileReader

READERS: dict[str, type[SlideReader]] = {
    reader.backend: reader for reader in (CuCIMReader, OpenSlideReader, TifffileReader, DicomReader, ImageReader)
}
# Slides that a process keeps open: OpenSlide caches up to 32 MB of each, and to open one again takes a few ms.
MAX_OPEN = 16


def open_slide(
    path: Path,
    backend: str = "auto",
    mpp: float | None = None,
    workers: int = 1,
    device: str = "cpu",
    default_mpp: float | None = None,
    series: int | None = None,
) -> SlideReader:
    """The slide in a file, or of DICOM in a folder, with ``mpp`` set.

    Args:
        path: of the slide.
        backend: one of READERS; "auto" takes by what the file holds cuCIM, tifffile or OpenSlide (TIFF, the first
            that opens it with all of its levels), DICOM, another format that OpenSlide knows, or a picture.
        mpp: um/px of level 0, before what the file says; None to take the file's.
        workers: threads of ``read_batch``.
        device: "cpu", or "cuda" to decode on a GPU what cuCIM reads.
        default_mpp: um/px of level 0 where the file does not say.
        series: number of the picture to take in a TIFF of several, counted from 0; None for the largest that is no
            label, macro or thumbnail.

    Raises:
        InputError: where there is no slide, nothing opens it, its pixels are not 8-bit RGB, or its um/px are missing,
            absurd or not the same along both axes.
    """
    path = Path(path)
    if backend not in ("auto", *READERS):
        raise InputError(f"backend={backend!r} is not known; one of auto, {', '.join(READERS)}.")
    try:
        names = backends_for(path) if backend == "auto" else (backend,)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror or error}); name a slide's file.") from error
    reasons = []
    for name in names:
        try:
            reader = READERS[name](path, workers, device, series)
            break
        except NotForThisReader as error:
            reasons.append(str(error).removeprefix(f"{path}: "))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error}); copy it again.") from error
    else:
        raise InputError(f"{path}: nothing opens it as a slide: {' '.join(reasons)}")
    try:
        if series and reader.picture is None:
            raise InputError(
                f"{path}: --series {series} is for pictures of a plain TIFF, which this is not; leave it out."
            )
        reader.mpp = checked_mpp(path, mpp if mpp is not None else _stated(reader) or default_mpp, "--mpp")
    except InputError:
        reader.close()
        raise
    return reader


def kept_open(path: str | Path, backend: str = "auto", mpp: float | None = None) -> SlideReader:
    """As :func:`open_slide`, opened once by each process and kept: handles of a parent are not used after a fork."""
    return _kept_open(os.getpid(), Path(path), backend, mpp)


@lru_cache(MAX_OPEN)
def _kept_open(process: int, path: Path, backend: str, mpp: float | None) -> SlideReader:
    return open_slide(path, backend, mpp)


def backends_for(path: Path) -> tuple[str, ...]:
    """The readers to try, by the first bytes of the file."""
    if path.is_dir():
        return ("dicom",)
    if not path.is_file():
        path.stat()  # raises where there is none
        raise InputError(f"{path}: is no file; name a slide's file.")
    with open(path, "rb") as file:
        start = file.read(132)
    if not start:
        raise InputError(f"{path}: is empty; copy it again.")
    if start[128:] == b"DICM":
        return ("dicom",)
    if is_tiff(path):
        # of a scanner's own kinds of TIFF OpenSlide knows which pages show what
        return ("cucim", "tifffile", "openslide") if format_of(path) in (*PLAIN, None) else ("openslide",)
    return ("openslide",) if format_of(path) is not None else ("image",)


def _stated(reader: SlideReader) -> float | None:
    if reader.stated_mpps is None:
        return None
    mpp_x, mpp_y = reader.stated_mpps
    if abs(mpp_x - mpp_y) > 0.01 * max(mpp_x, mpp_y):
        raise InputError(
            f"{reader.path}: its pixels are {mpp_x:g} by {mpp_y:g} um, not square; resample it, or give their um per "
            "pixel with --mpp where that is wrong."
        )
    return mpp_x
