"""Scanners' own kinds of TIFF, which OpenSlide reads: their tags, that can end the process, and their tiles' bytes."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.errors import InputError

from ..tiff_choice import opened, reading_tags
from ..tiff_pictures import MAX_PAGES
from ..tile_grid import JPEG2000, MAX_TILE_PIXELS
from .tile_checks import CheckedTiles, mark_tiles, refuse_cut_short

# Those of which it is known where the tiles of a page lie in a level.
MAPPED = ("leica", "philips")


class ScannerTiff:
    """The pages of a TIFF, to be made before OpenSlide opens it; the file is closed with the stack.

    Raises:
        InputError: for tags that cannot be read or true: of some OpenSlide asks for more memory than there is, which
            ends the process.
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        file = stack.enter_context(opened(path))
        with reading_tags(path):
            pages = list(_pages(file))
            self._check_tags(pages, os.fstat(file.filehandle.fileno()).st_size)
            self._pages = [
                CheckedTiles(path, page, f"page {page.index}", layers=True)
                for page in pages
                if page.is_tiled and page.compression in (tifffile.COMPRESSION.JPEG, *JPEG2000)
            ]
            mark_tiles(self._pages)
        self._areas0: list[tuple[int, ...]] = []

    def _check_tags(self, pages: list[tifffile.TiffPage], file_bytes: int) -> None:
        places = []
        for number, page in enumerate(pages):
            offsets, counts = (np.asarray(place, np.uint64) for place in (page.dataoffsets, page.databytecounts))
            tile = (page.tilewidth, page.tilelength) if page.is_tiled else (1, 1)
            if not 0 < tile[0] * tile[1] <= MAX_TILE_PIXELS or (counts > file_bytes).any():
                raise InputError(
                    f"{self.path}: says of its page {number} that a tile is {tile[0]} x {tile[1]} pixels in "
                    f"{counts.max(initial=0)} bytes, which cannot be; copy or export it again."
                )
            if len(offsets) != len(counts):
                raise InputError(
                    f"{self.path}: its page {number} tells where {len(offsets)} tiles begin, but of {len(counts)} how "
                    "long they are; copy or export it again."
                )
            places.append((offsets, counts))
        refuse_cut_short(self.path, places, file_bytes)

    def covers(self, properties: Mapping[str, str], downsamples: Sequence[float]) -> bool:
        """Whether :meth:`check` finds the tiles of all levels, by OpenSlide's properties of a format that is MAPPED."""
        self._areas0 = _areas(properties)
        return all(
            self._of_size(*(side / downsample for side in area0[2:]))
            for downsample in downsamples
            for area0 in self._areas0
        )

    def check(self, corner0: tuple[int, int], downsample: float, size: tuple[int, int]) -> None:
        """Raise UnreadablePixels where a tile is no picture of a box at ``corner0``, of a size in its level's pixels.

        Where pages of one size could be meant, the tiles of each are looked at.
        """
        for area0 in self._areas0:
            left, upper = ((corner - start) / downsample for corner, start in zip(corner0, area0[:2]))
            for tiles in self._of_size(*(side / downsample for side in area0[2:])):
                rows = _touched(upper, size[1], tiles.tile_height)
                columns = _touched(left, size[0], tiles.tile_width)
                tiles.check(rows, columns, downsample, area0[:2])

    def _of_size(self, width: float, height: float) -> list[CheckedTiles]:
        """The pages whose size is this one, or as much larger as what fills their last tiles."""
        return [
            tiles
            for tiles in self._pages
            if -2 <= tiles.page.imagewidth - width <= tiles.tile_width
            and -2 <= tiles.page.imagelength - height <= tiles.tile_height
        ]


def _pages(file: tifffile.TiffFile) -> Iterator[tifffile.TiffPage]:
    for page in file.pages:
        yield page
        yield from itertools.islice(page.pages or (), MAX_PAGES)


def _touched(start: float, length: int, tile: int) -> range:
    """The tiles along an axis that pixels are of; between two pixels OpenSlide blends both."""
    first, end = math.floor(start / tile), math.ceil(math.ceil(start + length) / tile)
    return range(max(0, first), max(0, end))


def _areas(properties: Mapping[str, str]) -> list[tuple[int, ...]]:
    """The scanned areas (x0, y0, width, height) of level 0; all of it where a format has one."""
    names = ("x", "y", "width", "height")
    found = []
    while (key := f"openslide.region[{len(found)}]") + ".x" in properties:
        found.append(tuple(int(properties[f"{key}.{name}"]) for name in names))
    level0 = tuple(int(properties[f"openslide.level[0].{name}"]) for name in names[2:])
    return found or [(0, 0, *level0)]
