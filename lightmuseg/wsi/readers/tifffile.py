"""TIFF by tifffile: tiles or strips decoded one by one."""

from __future__ import annotations

import itertools
from functools import lru_cache, partial

import numpy as np
import tifffile
from PIL import Image

from lightmuseg.errors import first_line

from ..tiff import UNDECODABLE, UNREADABLE_TAGS, raise_bug
from ..tile_grid import APERIO_YCBCR
from .reader import NotForThisReader, UnreadablePixels, assembled
from .tiff_tiles import TiffReader
from .tile_checks import CheckedTiles

# Bytes of decoded tiles that are kept for the boxes that overlap them.
CACHE_BYTES = 128_000_000


class TifffileReader(TiffReader):
    """Boxes put together from tiles that tifffile decodes."""

    backend, package = "tifffile", "tifffile"
    decoding_errors = UNDECODABLE

    def _opened(self) -> None:
        self._open_tiff()
        try:
            for level in self.levels:
                # both are kept by the page, and looked for when first asked for
                _ = tifffile.TIFF.DECOMPRESSORS[level.page.compression], level.page.is_jfif
        except (*UNREADABLE_TAGS, ImportError) as error:
            raise NotForThisReader(
                f"{self.path}: tifffile cannot decode it ({first_line(error)}); pip install 'lightmuseg[slides]'."
            ) from error
        largest = max(grid.tile_width * grid.tile_height * grid.samples for one in self.levels for grid in one.planes)
        self._tile = lru_cache(max(1, CACHE_BYTES // largest))(_tile)
        self._open.callback(self._tile.cache_clear)
        self._refuse_transparent()

    def _refuse_transparent(self) -> None:
        """Refuse a slide with transparent pixels in a corner or the middle; elsewhere they are refused when read."""
        last, level = len(self.levels) - 1, self.levels[-1]
        places = ((0, level.width // 2, level.width - 1), (0, level.height // 2, level.height - 1))
        for xl, yl in itertools.product(*places) if level.planes[0].samples == 4 else ():
            try:
                pixels = self._channels(last, xl, yl, 1, 1)
            except UNDECODABLE as error:
                raise_bug(error)
                continue
            self._opaque(pixels)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        return self._opaque(self._channels(level, xl, yl, width, height))

    def _channels(self, level: int, *box: int) -> np.ndarray:
        own = self.levels[level]
        planes = [
            own.read(box, lambda plane=plane: assembled(own, box, partial(self._tile, plane), plane.samples), plane)
            for plane in own.planes
        ]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _opaque(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
            raise UnreadablePixels(f"{self.path}: has transparent pixels, not 8-bit RGB; lay it on white first.")
        return pixels[..., :3]


def _tile(tiles: CheckedTiles, row: int, column: int) -> np.ndarray | None:
    if not tiles.counts[row, column]:
        return None
    page, number = tiles.page, tiles.first + row * tiles.counts.shape[1] + column
    segment, _, shape = page.decode(tiles.bytes_of(row, column), number, jpegtables=page.jpegtables)
    tile = segment[0, : shape[1], : shape[2]]
    return np.asarray(Image.fromarray(tile, "YCbCr").convert("RGB")) if page.compression == APERIO_YCBCR else tile
