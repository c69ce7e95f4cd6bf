"""The tiles of a TIFF pyramid: where each lies in the file, and whether its bytes can be a picture.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.errors import InputError
from lightmuseg.files import read_at

from ..tiff import check_pixels, is_contiguous
from ..tiff_pictures import Pages
from ..tiff_slide import chosen, lies_first, opened, reading_tags
from .reader import WHITE, Level, NotForThisReader, UnreadablePixels
from .tile_checks import JPEG, blank_and_shared, check_compression, is_plain, tile_fault
from .tile_faults import jpeg_colours

# A tile is decoded in one piece, whatever little of it is asked for.
MAX_TILE_PIXELS = 64_000_000
_UNKNOWN, _GOOD, _EMPTY, _SHARED = range(4)


@dataclass(frozen=True, eq=False, kw_only=True)
class TiffLevel(Level):
    """A level that is a page of a TIFF.

    ``offsets`` and ``counts`` [rows, columns] say where the bytes of each tile (of an untiled page: strip) lie;
    ``state`` [rows, columns] what is known of each. ``samples`` are the channels of a tile, ``first_tile`` is the
    number of the first in its page. A level that is stored as three channels has them as ``channels``.
    """

    page: tifffile.TiffPage
    offsets: np.ndarray
    counts: np.ndarray
    state: np.ndarray
    samples: int = 3
    first_tile: int = 0
    channels: tuple[TiffLevel, ...] = ()


def x0_of(xl: int, downsample: float) -> int:
    """The level-0 pixel that libraries which count in level 0 take for pixel ``xl`` of a level.

    They divide by the level's downsample and cut the fraction off; the pixel's middle is farthest from an error.

    >>> x0_of(10, 1.0), x0_of(10, 4.0), x0_of(3, 2.0005)
    (10, 42, 7)
    """
    return xl if downsample == 1 else int((xl + 0.5) * downsample)


class TiffTiles:
    """The pyramid in a TIFF, from its tags alone; safe for several threads.

    Args:
        path: of the file.
        series: number of the picture that is the slide; None for the largest.

    Attributes:
        levels: from the finest.
        stated_mpps: um/px along x and y by the tags; None where they have none.
        picture: which picture of the file the slide is, and what the others are.

    Raises:
        InputError: where its tags cannot be read, contradict each other, or its pixels are not 8-bit RGB.
    """

    def __init__(self, path: Path, series: int | None = None) -> None:
        self.path = path
        self.file = opened(path)
        with reading_tags(path, self.file):
            self._descriptor = self.file.filehandle.fileno()
            self._bytes = os.fstat(self._descriptor).st_size
            choice = chosen(path, self.file, series)
            self._lies_first = lies_first(choice, self.file)
            self.stated_mpps = choice.picture.mpps
            self.picture = choice.plain()
            self.levels = tuple(self._level(pages, choice.picture.base) for pages in choice.picture.levels)
            self._check_length()
            self._mark_places()
            for level in self.levels:
                # of one channel a JPEG says no colours
                if not level.channels:
                    self._check_colours(level)

    def close(self) -> None:
        """Let the file go."""
        self.file.close()

    def _level(self, pages: Pages, base: tifffile.TiffPage) -> TiffLevel:
        check_pixels(self.path, pages)
        page = pages[0]
        width, height = page.imagewidth, page.imagelength
        downsample = (base.imagewidth / width + base.imagelength / height) / 2 if width and height else 1.0
        if len(pages) == 1 and is_contiguous(page):
            level = self._stored_level(page, downsample, page.samplesperpixel)
        else:
            parts = [(one, plane) for one in pages for plane in range(1 if len(pages) == 3 else 3)]
            channels = tuple(self._stored_level(one, downsample, 1, plane) for one, plane in parts)
            level = dataclasses.replace(channels[0], samples=3, channels=channels)
        for one in pages:
            if one.is_tiled:
                _forget_places(one)
        return level

    def _stored_level(self, page: tifffile.TiffPage, downsample: float, samples: int, plane: int = 0) -> TiffLevel:
        check_compression(self.path, page)
        width, height = page.imagewidth, page.imagelength
        tile_width, tile_height = (page.tilewidth, page.tilelength) if page.is_tiled else (width, page.rowsperstrip)
        tile_height = min(tile_height, height) if not page.is_tiled else tile_height
        if min(width, height, tile_width, tile_height) < 1:
            raise InputError(f"{self.path}: says that it is {width} x {height} pixels; export it again.")
        if tile_width * tile_height > MAX_TILE_PIXELS:
            raise InputError(
                f"{self.path}: a {'tile' if page.is_tiled else 'strip'} is {tile_width} x {tile_height} pixels, more "
                f"than the {MAX_TILE_PIXELS / 1e6:.0f} megapixels that are decoded in one piece; save it with tiles "
                "of 256 or 512 pixels."
            )
        rows, columns = math.ceil(height / tile_height), math.ceil(width / tile_width)
        planes = 1 if is_contiguous(page) else page.samplesperpixel
        offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
        if not planes * rows * columns == len(offsets) == len(counts):
            raise InputError(
                f"{self.path}: {width} x {height} pixels are {planes * rows * columns} tiles, but it tells of "
                f"{len(offsets)}; export it again."
            )
        first = plane * rows * columns
        offsets, counts = (places[first:][: rows * columns].reshape(rows, columns) for places in (offsets, counts))
        return TiffLevel(
            width=width,
            height=height,
            downsample=downsample,
            page=page,
            tile_width=tile_width,
            tile_height=tile_height,
            offsets=offsets,
            counts=counts,
            state=np.full((rows, columns), _UNKNOWN, np.uint8),
            samples=samples,
            first_tile=first,
        )

    def _stored(self) -> list[TiffLevel]:
        """The levels, of those in three channels each channel."""
        return [part for level in self.levels for part in level.channels or (level,)]

    def _check_length(self) -> None:
        """One tile behind the file's end may be one that is corrupt; several are a file that was not copied whole."""
        lost = sum(int(np.sum(level.offsets + level.counts > self._bytes)) for level in self._stored())
        if lost > 1:
            tiles = sum(level.offsets.size for level in self._stored())
            raise InputError(f"{self.path}: is cut short, {lost} of its {tiles} tiles are missing; copy it again.")

    def _mark_places(self) -> None:
        """Tell the tiles that a scanner left out, and those of which another one has the bytes too."""
        stored = self._stored()
        found = blank_and_shared([(level.offsets, level.counts) for level in stored], self._bytes)
        for level, (blank, shared) in zip(stored, found):
            level.state[blank], level.state[shared] = _EMPTY, _SHARED

    def _check_colours(self, level: TiffLevel) -> None:
        if level.page.compression != JPEG:
            return
        for row, column in np.argwhere(level.counts > 0)[:1]:
            said = jpeg_colours(self.bytes_of(level, row, column))
            if said is not None and said != level.page.photometric.name:
                raise InputError(
                    f"{self.path}: its tags say {level.page.photometric.name}, its JPEG tiles say {said}; which is "
                    "right cannot be told: export it again."
                )

    def places_in(self, sizes: Sequence[tuple[int, int]], library: str) -> list[int]:
        """The numbers that a library gives the levels, by the sizes (width, height) of those it sees.

        Raises:
            NotForThisReader: where it does not see them all, another one than the finest as its first, or could take
                another page for one.
        """
        if not self._lies_first:
            raise NotForThisReader(f"{self.path}: {library} could take another page for a level.")
        own = [(level.width, level.height) for level in self.levels]
        missing = [size for size in own if size not in sizes] or [size for size in own[:1] if sizes[0] != size]
        if missing:
            width, height = missing[0]
            raise NotForThisReader(f"{self.path}: {library} does not see its level of {width} x {height} pixels.")
        return [sizes.index(size) for size in own]

    def bytes_of(self, level: TiffLevel, row: int, column: int) -> bytes:
        """The compressed bytes of a tile; fewer than the tags say where the file ends before."""
        offset, count = int(level.offsets[row, column]), int(level.counts[row, column])
        if offset + count > self._bytes:
            return b""
        return read_at(self._descriptor, count, offset)

    def read(self, level: TiffLevel, box: tuple[int, int, int, int], decode: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``decode`` gives for a box inside a level, once the bytes of all its tiles are known to be pictures.

        Tiles of no bytes and no place are white: scanners leave background out. ``box`` is (xl, yl, width, height).

        Raises:
            UnreadablePixels: where the bytes of any of the tiles are no picture.
        """
        xl, yl, width, height = box
        rows = slice(yl // level.tile_height, math.ceil((yl + height) / level.tile_height))
        columns = slice(xl // level.tile_width, math.ceil((xl + width) / level.tile_width))
        state = level.state[rows, columns]
        for row, column in np.argwhere((state != _GOOD) & (state != _EMPTY)):
            self._check(level, rows.start + row, columns.start + column)
        empty = np.argwhere(state == _EMPTY)
        if not len(empty):
            return decode()
        pixels = (
            np.full((height, width, level.samples), WHITE, np.uint8) if len(empty) == state.size else decode().copy()
        )
        for row, column in empty:
            upper = (rows.start + row) * level.tile_height - yl
            left = (columns.start + column) * level.tile_width - xl
            pixels[max(0, upper) : upper + level.tile_height, max(0, left) : left + level.tile_width] = WHITE
        return pixels

    def _check(self, level: TiffLevel, row: int, column: int) -> None:
        fault = self._fault(level, row, column)
        if not fault:
            level.state[row, column] = _GOOD
        else:
            x0, y0 = (column * level.tile_width * level.downsample, row * level.tile_height * level.downsample)
            raise UnreadablePixels(
                f"{self.path}: the tile of level {self._number_of(level)} at level-0 pixel {x0:.0f}, {y0:.0f} cannot "
                f"be decoded ({fault}); copy or export it again."
            )

    def _number_of(self, level: TiffLevel) -> int:
        stored = ((number, part) for number, own in enumerate(self.levels) for part in (own, *own.channels))
        return next(number for number, part in stored if part is level)

    def _fault(self, level: TiffLevel, row: int, column: int) -> str | None:
        """Why the bytes of a tile cannot be a picture; None where they can."""
        data = self.bytes_of(level, row, column)
        if len(data) < level.counts[row, column]:
            return "the file ends before it"
        page, offset = level.page, int(level.offsets[row, column])
        # the last strip ends with the picture, the last tile does not
        shown = (
            min(level.tile_height, level.height - row * level.tile_height),
            min(level.tile_width, level.width - column * level.tile_width),
        )
        height = level.tile_height if page.is_tiled else shown[0]
        fault = tile_fault(page, data, offset, (height, level.tile_width, level.samples), shown)
        if fault or level.state[row, column] != _SHARED:
            return fault
        plain = is_plain(page, data, level.first_tile + row * level.counts.shape[1] + column)
        return None if plain else "its bytes are another tile's too"


def _forget_places(page: tifffile.TiffPage) -> None:
    """Let go of a page's tuples of where its tiles lie, but of the first: of 64 gigapixels they take 100 MB."""
    page.dataoffsets, page.databytecounts = page.dataoffsets[:1], page.databytecounts[:1]
    for name in ("TileOffsets", "TileByteCounts"):
        if name in page.tags:
            del page.tags[name]
