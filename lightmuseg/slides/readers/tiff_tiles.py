"""The tiles of a TIFF pyramid: where each lies in the file, and whether its bytes can be a picture.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels.
"""

from __future__ import annotations

import itertools
import math
import os
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from lightmuseg.data.tiff import UNREADABLE_TAGS, check_pixels, first_page, stated_mpps
from lightmuseg.errors import InputError, first_line

from .reader import WHITE, Level, NotForThisReader, UnreadablePixels
from .tile_checks import JPEG, blank_and_shared, check_compression, is_plain, tile_fault
from .tile_faults import jpeg_colours

# A tile is decoded in one piece, whatever little of it is asked for.
MAX_TILE_PIXELS = 64_000_000
# A pyramid has a dozen pages, a stack of layers some more.
MAX_PAGES = 1000
_UNKNOWN, _GOOD, _EMPTY, _SHARED = range(4)
_NOT_TISSUE = re.compile(r"(^|\n)\s*(label|macro|thumbnail)\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class TiffLevel(Level):
    """A level that is a page of a TIFF.

    ``offsets`` and ``counts`` [rows, columns] say where the bytes of each tile (of an untiled page: strip) lie;
    ``state`` [rows, columns] what is known of each.
    """

    page: tifffile.TiffPage
    tile_width: int
    tile_height: int
    offsets: np.ndarray
    counts: np.ndarray
    state: np.ndarray


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

    Attributes:
        levels: from the finest.
        stated_mpps: um/px along x and y by the tags; None where they have none.

    Raises:
        InputError: where its tags cannot be read, contradict each other, or its pixels are not 8-bit RGB.
    """

    def __init__(self, path: Path) -> None:
        first_page(path)
        self.path = path
        self.file = tifffile.TiffFile(path)
        try:
            self._descriptor = self.file.filehandle.fileno()
            self._bytes = os.fstat(self._descriptor).st_size
            self.levels = tuple(self._levels())
            self.stated_mpps = stated_mpps(self.levels[0].page)
            self._check_length()
            self._mark_places()
            for level in self.levels:
                self._check_colours(level)
        except InputError:
            self.file.close()
            raise
        except UNREADABLE_TAGS as error:
            self.file.close()
            raise InputError(f"{path}: its tags cannot be read ({first_line(error)}); export it again.") from error

    def close(self) -> None:
        """Let the file go."""
        self.file.close()

    def _levels(self) -> list[TiffLevel]:
        self._check_chain()
        base = self.file.pages[0]
        sub = base.pages if base.pages is not None else ()
        pages = [base]
        for page in (*itertools.islice(sub, MAX_PAGES), *self.file.pages):
            if isinstance(page, tifffile.TiffPage) and _is_level_of(page, base):
                pages.append(page)
        sizes = {}
        for page in pages:
            sizes.setdefault((page.imagewidth, page.imagelength), page)
        ordered = sorted(sizes.values(), key=lambda page: -page.imagewidth * page.imagelength)
        return [self._level(page, base) for page in ordered]

    def _check_chain(self) -> None:
        """Follow the pages before tifffile does: it runs round a ring for ever, and leaves out what is missing."""
        form, offset, seen = self.file.tiff, self.file.pages[0].offset, set()
        with open(self.path, "rb") as file:
            while offset:
                if offset in seen or len(seen) == MAX_PAGES or offset >= self._bytes:
                    raise InputError(
                        f"{self.path}: its page {len(seen) + 1} is said to begin at byte {offset}, which is missing, a "
                        "page before, or one too many; copy or export it again."
                    )
                seen.add(offset)
                file.seek(offset)
                (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
                file.seek(tags * form.tagsize, os.SEEK_CUR)
                (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))

    def _level(self, page: tifffile.TiffPage, base: tifffile.TiffPage) -> TiffLevel:
        check_pixels(self.path, page)
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
        offsets, counts = np.asarray(page.dataoffsets, np.int64), np.asarray(page.databytecounts, np.int64)
        if not rows * columns == len(offsets) == len(counts):
            raise InputError(
                f"{self.path}: {width} x {height} pixels are {rows * columns} tiles, but it tells of {len(offsets)}; "
                "export it again."
            )
        if page.is_tiled:
            _forget_places(page)
        return TiffLevel(
            width=width,
            height=height,
            downsample=(base.imagewidth / width + base.imagelength / height) / 2,
            page=page,
            tile_width=tile_width,
            tile_height=tile_height,
            offsets=offsets.reshape(rows, columns),
            counts=counts.reshape(rows, columns),
            state=np.full((rows, columns), _UNKNOWN, np.uint8),
        )

    def _check_length(self) -> None:
        """One tile behind the file's end may be one that is corrupt; several are a file that was not copied whole."""
        lost = sum(int(np.sum(level.offsets + level.counts > self._bytes)) for level in self.levels)
        if lost > 1:
            tiles = sum(level.offsets.size for level in self.levels)
            raise InputError(f"{self.path}: is cut short, {lost} of its {tiles} tiles are missing; copy it again.")

    def _mark_places(self) -> None:
        """Tell the tiles that a scanner left out, and those of which another one has the bytes too."""
        found = blank_and_shared([(level.offsets, level.counts) for level in self.levels], self._bytes)
        for level, (blank, shared) in zip(self.levels, found):
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
            NotForThisReader: where it does not see them all, or another one than the finest as its first.
        """
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
        return os.pread(self._descriptor, count, offset)

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
        pixels = np.full((height, width, 3), WHITE, np.uint8) if len(empty) == state.size else decode().copy()
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
                f"{self.path}: the tile of level {self.levels.index(level)} at level-0 pixel {x0:.0f}, {y0:.0f} cannot "
                f"be decoded ({fault}); copy or export it again."
            )

    def _fault(self, level: TiffLevel, row: int, column: int) -> str | None:
        """Why the bytes of a tile cannot be a picture; None where they can."""
        data = self.bytes_of(level, row, column)
        if len(data) < level.counts[row, column]:
            return "the file ends before it"
        page, offset = level.page, int(level.offsets[row, column])
        # the last strip ends with the picture, the last tile does not
        height = level.tile_height if page.is_tiled else min(level.tile_height, level.height - row * level.tile_height)
        fault = tile_fault(page, data, offset, level.tile_width, height, page.samplesperpixel)
        if fault or level.state[row, column] != _SHARED:
            return fault
        plain = is_plain(page, data, row * level.counts.shape[1] + column)
        return None if plain else "its bytes are another tile's too"


def _forget_places(page: tifffile.TiffPage) -> None:
    """Let go of a page's tuples of where its tiles lie, but of the first: of 64 gigapixels they take 100 MB."""
    page.dataoffsets, page.databytecounts = page.dataoffsets[:1], page.databytecounts[:1]
    for name in ("TileOffsets", "TileByteCounts"):
        if name in page.tags:
            del page.tags[name]


def _is_level_of(page: tifffile.TiffPage, base: tifffile.TiffPage) -> bool:
    """Whether a page shows the same as the first in fewer pixels, and is no picture of the label or the whole glass."""
    if not (page.is_tiled and base.is_tiled and page.samplesperpixel == 3 and page.bitspersample == 8):
        return False
    width, height = page.imagewidth, page.imagelength
    if not (0 < width <= base.imagewidth and 0 < height <= base.imagelength and width * height > 0):
        return False
    # 2%, or what rounding a side to whole pixels makes
    slack = max(0.02 * base.imagewidth * height, base.imagewidth + base.imagelength)
    same_shape = abs(base.imagewidth * height - width * base.imagelength) <= slack
    return same_shape and page.subfiletype not in (9,) and not _NOT_TISSUE.search(page.description)
