"""Which tiles of a TIFF cannot be what its tags say: by their bytes, and by where these lie.

Decoders hide damage: of a broken JPEG or JPEG 2000 tile cuCIM, imagecodecs and in part OpenSlide give whatever they
have by then.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from lightmuseg.errors import InputError, first_line

from ..jpeg import jpeg_colours, jpeg_fault
from ..jpeg2000 import jpeg2000_fault
from ..tiff import UNDECODABLE, raise_bug
from ..tile_grid import JPEG2000, TileGrid
from .reader import NotForThisReader, UnreadablePixels

DEFLATE = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
# Bytes of a disk's block; no encoder gives so many zeros.
SECTOR = 512
_ZEROS = re.compile(rb"\0{%d,}" % SECTOR)
# Of a TIFF's header, where no tile can lie.
_HEADER = 8
# In grey values: of a tile of one colour, and of what lies beside black.
_PLAIN, _DARK = 2, 16
_OTHER_LENGTH, _OTHER_SIZE = "it has another number of bytes", "its size is another one than the file says"
# What is known of a tile: nothing; that it is whole; that the scanner left it out; that its bytes are another's too.
_UNKNOWN, _GOOD, EMPTY, _SHARED = range(4)


class _Tile(NamedTuple):
    """A tile's bytes, the place of the first in the file, its [height, width, channels], and what shows of it."""

    page: tifffile.TiffPage
    data: bytes
    offset: int
    shape: tuple[int, int, int]
    shown: tuple[int, int]


def _jpeg(tile: _Tile) -> str | None:
    height, width, channels = tile.shape
    fault = jpeg_fault(tile.data, tile.page.jpegtables, width, height, channels)
    stated = tile.page.photometric.name
    if fault or channels == 1 or stated not in ("RGB", "YCBCR"):
        return fault
    return None if jpeg_colours(tile.data) in (None, stated) else "its colours are others than the file says"


def _uncompressed(tile: _Tile) -> str | None:
    """Black areas end between pixels and darken towards their ends; lost blocks of a disk end anywhere, at once."""
    data, shape, shown = tile.data, tile.shape, tile.shown
    if len(data) != math.prod(shape):
        return _OTHER_LENGTH
    if tile.page.predictor != 1 or data.find(bytes(SECTOR)) < 0:
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
        on_disk = cuts and block and all((tile.offset + cut) % block == 0 for cut in cuts)
        if whole or on_disk or any(cut % channels for cut in cuts):
            return f"it has nothing but zeros at byte {start}"
    return None


def _bytes(tile: _Tile) -> str | None:
    """Of decoders that give bytes, of which a wrong number shows damage."""
    # room for one byte more shows what is too long
    size, compression = math.prod(tile.shape), tile.page.compression
    if compression not in DEFLATE:
        decoded = tifffile.TIFF.DECOMPRESSORS[compression](tile.data, out=size + 1)
        return None if len(decoded) == size else _OTHER_LENGTH
    # tifffile's, where imagecodecs is not installed, knows no bound
    inflating = zlib.decompressobj()
    decoded = inflating.decompress(tile.data, size + 1)
    return None if inflating.eof and len(decoded) == size else _OTHER_LENGTH


def _pixels(tile: _Tile) -> str | None:
    """Of decoders that give pixels and raise an error of damage."""
    decoded = tifffile.TIFF.DECOMPRESSORS[tile.page.compression](tile.data)
    return None if decoded.shape[:2] == tile.shape[:2] else _OTHER_SIZE


def _jpeg2000(tile: _Tile) -> str | None:
    return jpeg2000_fault(tile.data, tile.shape[1], tile.shape[0])


# What says of each compression why a tile is not whole. Of others damage would not be seen.
_CODECS: dict[int, Callable[[_Tile], str | None]] = {
    tifffile.COMPRESSION.JPEG: _jpeg, **dict.fromkeys(JPEG2000, _jpeg2000), tifffile.COMPRESSION.NONE: _uncompressed,
    **dict.fromkeys(DEFLATE, _bytes), tifffile.COMPRESSION.LZW: _bytes, tifffile.COMPRESSION.PACKBITS: _bytes,
    tifffile.COMPRESSION.ZSTD: _bytes, tifffile.COMPRESSION.ZSTD_DEPRECATED: _bytes,
    tifffile.COMPRESSION.LZMA: _bytes, tifffile.COMPRESSION.WEBP: _pixels,
    tifffile.COMPRESSION.WEBP_DEPRECATED: _pixels, tifffile.COMPRESSION.JPEGXL: _pixels,
    tifffile.COMPRESSION.PNG: _pixels, tifffile.COMPRESSION.LERC: _pixels,
}  # fmt: skip


def check_compression(path: Path, page: tifffile.TiffPage) -> None:
    """Raise an InputError for a compression of which damage cannot be seen, or whose decoder is not installed."""
    compression = page.compression
    if compression not in _CODECS:
        raise InputError(
            f"{path}: of its compression, {getattr(compression, 'name', compression)}, damage would not be seen; save "
            "it as JPEG, JPEG 2000 or deflate."
        )
    if _CODECS[compression] in (_bytes, _pixels):
        try:
            _ = tifffile.TIFF.DECOMPRESSORS[compression]
        except (KeyError, ValueError, ImportError) as error:
            raise NotForThisReader(
                f"{path}: it cannot be decoded ({first_line(error)}); pip install 'lightmuseg[slides]'."
            ) from error


class CheckedTiles(TileGrid):
    """A :class:`.TileGrid` whose tiles are each looked at once; messages call the page or its level by ``name``."""

    def __init__(self, path: Path, page: tifffile.TiffPage, name: str, plane: int = 0, layers: bool = False) -> None:
        super().__init__(path, page, plane, layers)
        self._path, self._name = path, name
        self.state = np.full(self.counts.shape, _UNKNOWN, np.uint8)

    def check(
        self, rows: range, columns: range, downsample: float = 1.0, corner0: tuple[float, float] = (0, 0)
    ) -> None:
        """Raise UnreadablePixels where the bytes of any of these tiles are no picture.

        The page lies at ``corner0`` of level 0 and is ``downsample`` times coarser.
        """
        state = self.state[rows.start : rows.stop, columns.start : columns.stop]
        unchecked = np.argwhere((state == _UNKNOWN) | (state == _SHARED))
        for row, column in np.add(unchecked, (rows.start, columns.start)):
            fault = self._fault(row, column)
            if not fault:
                self.state[row, column] = _GOOD
                continue
            x0 = corner0[0] + column * self.tile_width * downsample
            y0 = corner0[1] + row * self.tile_height * downsample
            raise UnreadablePixels(
                f"{self._path}: the tile of {self._name} at level-0 pixel {x0:.0f}, {y0:.0f} cannot be decoded "
                f"({fault}); copy or export it again."
            )

    def _fault(self, row: int, column: int) -> str | None:
        """Why the bytes of a tile cannot be a picture; None where they can."""
        page, offset = self.page, int(self.offsets[row, column])
        if offset + self.counts[row, column] > self.file_bytes:
            return "the file ends before it"
        data = self.bytes_of(row, column)
        if not data:
            return "it has a place in the file, but no bytes"
        if offset < _HEADER:
            return "it lies where the file's header is"
        check = _CODECS[page.compression]
        if check in (_bytes, _pixels) and (zeros := data.find(bytes(SECTOR))) >= 0:
            return f"it has nothing but zeros at byte {zeros}"
        # the last strip ends with the picture, the last tile does not
        shown = (
            min(self.tile_height, page.imagelength - row * self.tile_height),
            min(self.tile_width, page.imagewidth - column * self.tile_width),
        )
        shape = self.tile_height if page.is_tiled else shown[0], self.tile_width, self.samples
        try:
            fault = check(_Tile(page, data, offset, shape, shown))
        except UNDECODABLE as error:
            raise_bug(error)
            return first_line(error)
        if fault or self.state[row, column] != _SHARED or self._is_plain(row, column, data):
            return fault
        return "its bytes are another tile's too"

    def _is_plain(self, row: int, column: int, data: bytes) -> bool:
        """Whether a tile that has no fault is of one colour."""
        try:
            pixels = self.pixels_of(row, column, data)
        except UNDECODABLE:
            return False
        return bool((np.ptp(pixels.reshape(-1, pixels.shape[2] if pixels.ndim == 3 else 1), axis=0) <= _PLAIN).all())


def refuse_cut_short(path: Path, places: Sequence[tuple[np.ndarray, np.ndarray]], length: int) -> None:
    """One tile behind the file's end may be one that is corrupt; several are a file that was not copied whole."""
    lost = sum(int(np.sum(offsets + counts > length)) for offsets, counts in places)
    if lost > 1:
        tiles = sum(offsets.size for offsets, _ in places)
        raise InputError(f"{path}: is cut short, {lost} of its {tiles} tiles are missing; copy it again.")


def mark_tiles(grids: Sequence[CheckedTiles]) -> None:
    """Tell the tiles that a scanner left out, and those of which another one of any grid has the bytes too."""
    if not grids:
        return
    offsets, counts = (
        np.concatenate([getattr(grid, name).ravel() for grid in grids]) for name in ("offsets", "counts")
    )
    state = np.where(shared_tiles(offsets, counts), _SHARED, _UNKNOWN).astype(np.uint8)
    state[blank_tiles(offsets, counts, grids[0].file_bytes)] = EMPTY
    for grid, part in zip(grids, np.split(state, np.cumsum([grid.counts.size for grid in grids])[:-1])):
        grid.state[...] = part.reshape(grid.state.shape)


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
