"""The tiles of a TIFF pyramid, and what the readers of one have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tifffile

from lightmuseg.errors import InputError

from ..jpeg import jpeg_colours
from ..tiff import check_pixels, is_contiguous, size_of, stated_mpps
from ..tiff_choice import choose_picture, lies_first, opened, reading_tags
from ..tiff_pictures import Pages
from .reader import WHITE, Level, NotForThisReader, SlideReader, paste
from .tile_checks import EMPTY, CheckedTiles, check_compression, mark_tiles, refuse_cut_short


@dataclass(frozen=True, eq=False)
class TiffLevel(Level):
    """A level in a TIFF: ``planes`` are its tiles, of three channels that are stored by themselves those of each."""

    planes: tuple[CheckedTiles, ...] = ()

    @property
    def page(self) -> tifffile.TiffPage:
        """Of the file, the first of three."""
        return self.planes[0].page

    def read(
        self, box: tuple[int, int, int, int], decode: Callable[[], np.ndarray], tiles: CheckedTiles | None = None
    ) -> np.ndarray:
        """What ``decode`` gives for a box (xl, yl, width, height) inside the level, uint8 [height, width, channels].

        It is called once the bytes of all tiles of ``tiles``, else of the first plane, are known to be pictures. Tiles
        of no bytes and no place are white: scanners leave background out.

        Raises:
            UnreadablePixels: where the bytes of any of the tiles are no picture.
        """
        tiles = tiles or self.planes[0]
        xl, yl, width, height = box
        rows, columns = self.tiles_of(*box)
        tiles.check(rows, columns, self.downsample)
        state = tiles.state[rows.start : rows.stop, columns.start : columns.stop]
        empty = np.argwhere(state == EMPTY)
        if not len(empty):
            return decode()
        if len(empty) == state.size:
            return np.full((height, width, tiles.samples), WHITE, np.uint8)
        pixels = decode().copy()
        white = np.full((self.tile_height, self.tile_width, 1), WHITE, np.uint8)
        for row, column in np.add(empty, (rows.start, columns.start)):
            paste(white, pixels, column * self.tile_width - xl, row * self.tile_height - yl)
        return pixels


def x0_of(xl: int, downsample: float) -> int:
    """The level-0 pixel that libraries which count in level 0 take for pixel ``xl`` of a level.

    They divide by the level's downsample and cut the fraction off; the pixel's middle is farthest from an error.

    >>> x0_of(10, 1.0), x0_of(10, 4.0), x0_of(3, 2.0005)
    (10, 42, 7)
    """
    return xl if downsample == 1 else int((xl + 0.5) * downsample)


class TiffReader(SlideReader):
    """A reader that can take a TIFF's levels from the TIFF's tags, which say more than the libraries do."""

    levels: tuple[TiffLevel, ...]

    def _open_tiff(self) -> None:
        """Set what the tags say: ``levels``, ``stated_mpps`` and ``picture``; InputError where they cannot be."""
        self._file = self._open.enter_context(opened(self.path))
        with reading_tags(self.path):
            picture, self.picture = choose_picture(self.path, self._file, self._series)
            self._lies_first, self.stated_mpps = lies_first(picture, self._file), stated_mpps(picture.base, picture.ome)
            self.levels = tuple(self._level(number, pages, picture.base) for number, pages in enumerate(picture.levels))
            tiles = [plane for level in self.levels for plane in level.planes]
            refuse_cut_short(self.path, [(grid.offsets, grid.counts) for grid in tiles], tiles[0].file_bytes)
            mark_tiles(tiles)
            for level in self.levels:
                self._check_colours(level)

    def _level(self, number: int, pages: Pages, base: tifffile.TiffPage) -> TiffLevel:
        check_pixels(self.path, pages)
        planes = []
        for page in pages:
            check_compression(self.path, page)
            channels = range(1 if len(pages) == 3 or is_contiguous(page) else 3)
            planes += [CheckedTiles(self.path, page, f"level {number}", plane) for plane in channels]
            if page.is_tiled:
                _forget_places(page)
        width, height = size_of(pages[0])
        downsample, tiles = (base.imagewidth / width + base.imagelength / height) / 2, planes[0]
        return TiffLevel(width, height, downsample, tiles.tile_width, tiles.tile_height, planes=tuple(planes))

    def _check_colours(self, level: TiffLevel) -> None:
        tiles, stated = level.planes[0], level.page.photometric.name
        # of one channel a JPEG says no colours
        if level.page.compression != tifffile.COMPRESSION.JPEG or len(level.planes) > 1:
            return
        for row, column in np.argwhere(tiles.counts > 0)[:1]:
            colours = jpeg_colours(tiles.bytes_of(row, column))
            if colours not in (None, stated):
                raise InputError(
                    f"{self.path}: its tags say {stated}, its JPEG tiles say {colours}; which is right cannot be told: "
                    "export it again."
                )

    def _places_in(self, sizes: Sequence[tuple[int, int]], library: str) -> list[int]:
        """The numbers that a library gives the levels, by the sizes (width, height) of those it sees.

        NotForThisReader where it does not see all, not the finest first, or could take another page for one.
        """
        if not self._lies_first:
            raise NotForThisReader(f"{self.path}: {library} could take another page for a level.")
        own = [(level.width, level.height) for level in self.levels]
        missing = [size for size in own if size not in sizes] or [size for size in own[:1] if sizes[0] != size]
        if missing:
            width, height = missing[0]
            raise NotForThisReader(f"{self.path}: {library} does not see its level of {width} x {height} pixels.")
        return [sizes.index(size) for size in own]


def _forget_places(page: tifffile.TiffPage) -> None:
    """Let go of a page's tuples of where its tiles lie, but of the first: of 64 gigapixels they take 100 MB."""
    page.dataoffsets, page.databytecounts = page.dataoffsets[:1], page.databytecounts[:1]
    for name in ("TileOffsets", "TileByteCounts"):
        if name in page.tags:
            del page.tags[name]
