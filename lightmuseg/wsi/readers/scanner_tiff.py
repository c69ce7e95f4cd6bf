"""Scanners' own kinds of TIFF, which OpenSlide reads: their tags, that can end the process, and their tiles' bytes."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.errors import InputError
from lightmuseg.files import read_at

from ..tiff_pictures import MAX_PAGES
from ..tiff_slide import opened, reading_tags
from .reader import UnreadablePixels
from .tiff_tiles import MAX_TILE_PIXELS
from .tile_checks import JPEG, JPEG2000, blank_and_shared, is_plain, tile_fault

# Those of which it is known where the tiles of a page lie in a level.
MAPPED = ("leica", "philips")
# TIFF and BigTIFF, of either byte order
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UNKNOWN, _GOOD, _SHARED = range(3)


def is_tiff(start: bytes) -> bool:
    """Whether the first bytes of a file are a TIFF's."""
    return start[:4] in _TIFF


class ScannerTiff:
    """The pages of a TIFF that OpenSlide reads; to be made before OpenSlide opens it.

    Args:
        path: of the file.

    Raises:
        InputError: for tags that cannot be read or true: of some OpenSlide asks for more memory than there is, which
            ends the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = opened(path)
        with reading_tags(path, self.file):
            self._bytes = os.fstat(self.file.filehandle.fileno()).st_size
            found = list(_pages(self.file))
            self._check_tags(found)
            self._pages = [page for page in found if page.is_tiled and page.compression in (JPEG, *JPEG2000)]
            self._places = [_places(page) for page in self._pages]
        marks = blank_and_shared(self._places, self._bytes) if self._places else ()
        self._states = [
            np.where(blank, _GOOD, np.where(shared, _SHARED, _UNKNOWN)).astype(np.uint8) for blank, shared in marks
        ]

    def _check_tags(self, pages: list[tifffile.TiffPage]) -> None:
        lost = tiles = 0
        for number, page in enumerate(pages):
            offsets, counts = (np.asarray(place, np.uint64) for place in (page.dataoffsets, page.databytecounts))
            tile = (page.tilewidth, page.tilelength) if page.is_tiled else (1, 1)
            if not 0 < tile[0] * tile[1] <= MAX_TILE_PIXELS or (counts > self._bytes).any():
                raise InputError(
                    f"{self.path}: says of its page {number} that a tile is {tile[0]} x {tile[1]} pixels in "
                    f"{counts.max(initial=0)} bytes, which cannot be; copy or export it again."
                )
            if len(offsets) != len(counts):
                raise InputError(
                    f"{self.path}: its page {number} tells where {len(offsets)} tiles begin, but of {len(counts)} how "
                    "long they are; copy or export it again."
                )
            lost += int((offsets + counts > self._bytes).sum())
            tiles += len(counts)
        if lost > 1:
            raise InputError(f"{self.path}: is cut short, {lost} of its {tiles} tiles are missing; copy it again.")

    def check(
        self, properties: Mapping[str, str], corner0: tuple[int, int], downsample: float, size: tuple[int, int]
    ) -> None:
        """Let pass a box whose tiles are whole, looking at each tile once.

        Where pages of one size could be meant, the tiles of each are looked at.

        Args:
            properties: OpenSlide's, of a format that is MAPPED.
            corner0: the box's corner in pixels of the file's level 0.
            downsample: of its level.
            size: its width and height in pixels of the level.

        Raises:
            UnreadablePixels: where the bytes of any of the tiles are no picture.
        """
        for area0 in _areas(properties):
            left, upper = ((corner - start) / downsample for corner, start in zip(corner0, area0[:2]))
            for index in self._of_size(*(side / downsample for side in area0[2:])):
                page, state = self._pages[index], self._states[index]
                rows = _touched(upper, size[1], page.tilelength)
                columns = _touched(left, size[0], page.tilewidth)
                for row, column in np.argwhere(state[rows, columns] != _GOOD):
                    self._check_tile(index, rows.start + row, columns.start + column, area0, downsample)

    def covers(self, properties: Mapping[str, str], downsamples: Sequence[float]) -> bool:
        """Whether the tiles of all levels are among those that :meth:`check` looks at."""
        return all(
            self._of_size(*(side / downsample for side in area0[2:]))
            for downsample in downsamples
            for area0 in _areas(properties)
        )

    def _of_size(self, width: float, height: float) -> list[int]:
        """The pages whose size is this one, or as much larger as what fills their last tiles."""
        return [
            index
            for index, page in enumerate(self._pages)
            if -2 <= page.imagewidth - width <= page.tilewidth and -2 <= page.imagelength - height <= page.tilelength
        ]

    def _check_tile(self, index: int, row: int, column: int, area0: tuple[int, ...], downsample: float) -> None:
        fault = self._fault(index, row, column)
        if fault is None:
            self._states[index][row, column] = _GOOD
            return
        page = self._pages[index]
        x0, y0 = area0[0] + column * page.tilewidth * downsample, area0[1] + row * page.tilelength * downsample
        raise UnreadablePixels(
            f"{self.path}: the tile of page {page.index} at level-0 pixel {x0:.0f}, {y0:.0f} cannot be decoded "
            f"({fault}); copy or export it again."
        )

    def _fault(self, index: int, row: int, column: int) -> str | None:
        page, (offsets, counts) = self._pages[index], self._places[index]
        offset, count = int(offsets[row, column]), int(counts[row, column])
        if offset + count > self._bytes:
            return "the file ends before it"
        data = read_at(self.file.filehandle.fileno(), count, offset)
        shape = page.tilelength, page.tilewidth, page.samplesperpixel
        fault = tile_fault(page, data, offset, shape, shape[:2])
        if fault or self._states[index][row, column] != _SHARED:
            return fault
        plain = is_plain(page, data, row * counts.shape[1] + column)
        return None if plain else "its bytes are another tile's too"

    def close(self) -> None:
        """Let the file go."""
        self.file.close()


def _pages(file: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    for page in file.pages:
        yield page
        yield from itertools.islice(page.pages or (), MAX_PAGES)


def _places(page: tifffile.TiffPage) -> tuple[np.ndarray, np.ndarray]:
    shape = math.ceil(page.imagelength / page.tilelength), math.ceil(page.imagewidth / page.tilewidth)
    offsets, counts = (np.asarray(place, np.int64) for place in (page.dataoffsets, page.databytecounts))
    # what follows are other focal planes
    return offsets[: shape[0] * shape[1]].reshape(shape), counts[: shape[0] * shape[1]].reshape(shape)


def _touched(start: float, length: int, tile: int) -> slice:
    """The tiles along an axis that pixels are of; between two pixels OpenSlide blends both."""
    first, end = math.floor(start / tile), math.ceil(math.ceil(start + length) / tile)
    return slice(max(0, first), max(0, end))


def _areas(properties: Mapping[str, str]) -> list[tuple[int, ...]]:
    """The scanned areas (x0, y0, width, height) of level 0; all of it where a format has one."""
    names = ("x", "y", "width", "height")
    found = []
    while (key := f"openslide.region[{len(found)}]") + ".x" in properties:
        found.append(tuple(int(properties[f"{key}.{name}"]) for name in names))
    level0 = tuple(int(properties[f"openslide.level[0].{name}"]) for name in names[2:])
    return found or [(0, 0, *level0)]
