"""Which tiles of a TIFF cannot be what its tags say: by their bytes, and by where these lie."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import simplejpeg
import tifffile

from lightmuseg.errors import InputError, first_line

from ..jpeg import with_tables
from ..tiff import UNDECODABLE
from .reader import NotForThisReader
from .tile_faults import jpeg2000_fault, jpeg_colours, jpeg_fault

JPEG = tifffile.COMPRESSION.JPEG
# In Aperio's first kind the pixels are YCbCr, whatever the tags say.
APERIO_YCBCR = tifffile.COMPRESSION.APERIO_JP2000_YCBC
APERIO_RGB = tifffile.COMPRESSION.APERIO_JP2000_RGB
JPEG2000 = (APERIO_YCBCR, APERIO_RGB, tifffile.COMPRESSION.JPEG2000)
DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
NONE = tifffile.COMPRESSION.NONE
# Those whose decoders give bytes, of which a wrong number shows damage, and those that give pixels and raise of damage.
_BYTES = (
    *DEFLATE,
    tifffile.COMPRESSION.LZW, tifffile.COMPRESSION.PACKBITS, tifffile.COMPRESSION.ZSTD,
    tifffile.COMPRESSION.ZSTD_DEPRECATED, tifffile.COMPRESSION.LZMA,
)  # fmt: skip
_PIXELS = (
    tifffile.COMPRESSION.WEBP, tifffile.COMPRESSION.WEBP_DEPRECATED, tifffile.COMPRESSION.JPEGXL,
    tifffile.COMPRESSION.PNG, tifffile.COMPRESSION.LERC,
)  # fmt: skip
# Bytes of a disk's block; no encoder gives so many zeros.
SECTOR = 512
_ZEROS = re.compile(rb"\0{%d,}" % SECTOR)
# Of a TIFF's header, where no tile can lie.
_HEADER = 8
# In grey values: of a tile of one colour, and of what lies beside black.
_PLAIN, _DARK = 2, 16


def check_compression(path: Path, page: tifffile.TiffPage) -> None:
    """Let pass only compressions of which damage can be seen.

    Raises:
        InputError: for others.
        NotForThisReader: where a package is missing that decodes it.
    """
    compression = page.compression
    if compression not in (JPEG, *JPEG2000, NONE, *_BYTES, *_PIXELS):
        raise InputError(
            f"{path}: of its compression, {getattr(compression, 'name', compression)}, damage would not be seen; save "
            "it as JPEG, JPEG 2000 or deflate."
        )
    if compression in (*_BYTES, *_PIXELS):
        try:
            _ = tifffile.TIFF.DECOMPRESSORS[compression]
        except (KeyError, ValueError, ImportError) as error:
            raise NotForThisReader(
                f"{path}: it cannot be decoded ({first_line(error)}); pip install 'lightmuseg[slides]'."
            ) from error


def tile_fault(
    page: tifffile.TiffPage, data: bytes, offset: int, shape: tuple[int, int, int], shown: tuple[int, int]
) -> str | None:
    """Why the bytes of a tile cannot be a picture; None where they can.

    Args:
        page: that it belongs to.
        data: its bytes.
        offset: of the first of them in the file.
        shape: height, width and channels of the tile; of a page that stores each channel by itself one channel.
        shown: height and width of its part that lies inside the picture.
    """
    height, width, channels = shape
    compression, size = page.compression, height * width * channels
    if not data:
        return "it has a place in the file, but no bytes"
    if offset < _HEADER:
        return "it lies where the file's header is"
    if compression == JPEG:
        fault = jpeg_fault(data, page.jpegtables, width, height, channels)
        return fault or (_colour_fault(page, data) if channels > 1 else None)
    if compression in JPEG2000:
        return jpeg2000_fault(data, width, height)
    if compression == NONE:
        if len(data) != size:
            return "it has another number of bytes"
        return None if page.predictor != 1 else _lost_block(data, offset, shape, shown)
    if (zeros := data.find(bytes(SECTOR))) >= 0:
        return f"it has nothing but zeros at byte {zeros}"
    return _decoded_fault(compression, data, (height, width), size)


def _colour_fault(page: tifffile.TiffPage, data: bytes) -> str | None:
    said = jpeg_colours(data)
    if said is None or page.photometric.name not in ("RGB", "YCBCR") or said == page.photometric.name:
        return None
    return "its colours are others than the file says"


def _lost_block(data: bytes, offset: int, shape: tuple[int, int, int], shown: tuple[int, int]) -> str | None:
    """Black areas end between pixels and darken towards their ends; lost blocks of a disk end anywhere, at once."""
    if data.find(bytes(SECTOR)) < 0:
        return None
    channels, block = shape[2], SECTOR
    if shown[1] < shape[1]:
        # what lies beyond the edge is often black
        data, block = np.frombuffer(data, np.uint8).reshape(shape)[: shown[0], : shown[1]].tobytes(), None
    else:
        data = data[: shown[0] * shape[1] * channels]
    for zeros in _ZEROS.finditer(data):
        start, end = zeros.span()
        cuts = [cut for cut, beside in ((start, start - 1), (end, end)) if 0 < cut < len(data) and data[beside] > _DARK]
        whole = end - start == len(data)
        on_disk = cuts and block and all((offset + cut) % block == 0 for cut in cuts)
        if whole or on_disk or any(cut % channels for cut in cuts):
            return f"it has nothing but zeros at byte {start}"
    return None


def _decoded_fault(compression: int, data: bytes, shape: tuple[int, int], size: int) -> str | None:
    try:
        # room for one byte more shows what is too long
        if compression in DEFLATE:
            # tifffile's, where imagecodecs is not installed, knows no bound
            inflating = zlib.decompressobj()
            decoded = inflating.decompress(data, size + 1)
            if not inflating.eof:
                return "it has another number of bytes"
        elif compression in _BYTES:
            decoded = tifffile.TIFF.DECOMPRESSORS[compression](data, out=size + 1)
        else:
            decoded = tifffile.TIFF.DECOMPRESSORS[compression](data)
    except UNDECODABLE as error:
        return first_line(error)
    if compression in _BYTES:
        return None if len(decoded) == size else "it has another number of bytes"
    return None if decoded.shape[:2] == shape else "its size is another one than the file says"


def is_plain(page: tifffile.TiffPage, data: bytes, number: int) -> bool:
    """Whether a tile that has no fault is of one colour; ``number`` is its own in the page."""
    try:
        if page.compression == JPEG:
            pixels = simplejpeg.decode_jpeg(with_tables(data, page.jpegtables), "RGB")
        else:
            pixels = page.decode(data, number)[0]
    except UNDECODABLE:
        return False
    pixels = pixels.reshape(-1, pixels.shape[-1])
    return bool((np.ptp(pixels, axis=0) <= _PLAIN).all())


def blank_tiles(offsets: np.ndarray, counts: np.ndarray, file_bytes: int) -> np.ndarray:
    """Which tiles [N] the scanner left out: those without bytes that have no place, or one that can hold none.

    A tile without bytes whose place is nobody else's had some.

    >>> blank_tiles(np.array([0, 8, 100, 100, 300]), np.array([0, 0, 0, 200, 0]), 300)
    array([ True, False,  True, False,  True])
    """
    blank = (counts == 0) & ((offsets == 0) | (offsets >= file_bytes))
    if ((counts == 0) & ~blank).any():
        _, inverse, users = np.unique(offsets, return_inverse=True, return_counts=True)
        blank |= (counts == 0) & (users[inverse] > 1)
    return blank


def shared_tiles(offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Which tiles [N] have bytes that are another one's too, so that which of them is right cannot be told.

    Where one overlaps several and each of these only that one, it is the one that is wrong.

    >>> shared_tiles(np.array([0, 10, 20, 5, 30, 30]), np.array([10, 10, 10, 20, 5, 5]))
    array([False, False, False,  True,  True,  True])
    """
    shared = np.zeros(len(offsets), bool)
    order = np.argsort(offsets, kind="stable")
    order = order[counts[order] > 0]
    if len(order) < 2:
        return shared
    starts, ends = offsets[order], offsets[order] + counts[order]
    furthest = np.maximum.accumulate(ends)
    if (starts[1:] >= furthest[:-1]).all():
        return shared
    own = np.arange(len(order))
    behind = np.searchsorted(starts, ends) - 1
    others = behind - np.searchsorted(np.sort(ends), starts, side="right")
    # of those that overlap one other: which
    before = np.maximum.accumulate(np.where(ends == furthest, own, 0))
    other = np.where(behind > own, behind, np.concatenate([[0], before[:-1]]))
    shared[order] = (others > 1) | ((others == 1) & (others[other] <= 1))
    return shared


def blank_and_shared(
    places: Sequence[tuple[np.ndarray, np.ndarray]], file_bytes: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each level :func:`blank_tiles` and :func:`shared_tiles`, in view of all levels.

    Args:
        places: offsets and counts of the tiles of each level, [rows, columns].
        file_bytes: length of the file.
    """
    offsets, counts = (np.concatenate([level[which].ravel() for level in places]) for which in (0, 1))
    ends = np.cumsum([level[0].size for level in places])[:-1]
    found = zip(
        *(np.split(mask, ends) for mask in (blank_tiles(offsets, counts, file_bytes), shared_tiles(offsets, counts)))
    )
    return [tuple(mask.reshape(level[0].shape) for mask in masks) for level, masks in zip(places, found)]
