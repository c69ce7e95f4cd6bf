"""TIFF by tifffile: tiles or strips decoded one by one."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from lightmuseg.errors import InputError, first_line

from ..tiff import UNDECODABLE, UNREADABLE_TAGS, raise_bug
from .reader import NotForThisReader, SlideReader, UnreadablePixels
from .tiff_tiles import TiffLevel, TiffTiles
from .tile_checks import APERIO_YCBCR

# Bytes of decoded tiles that are kept for the boxes that overlap them.
CACHE_BYTES = 128_000_000


class TifffileReader(SlideReader):
    """Boxes put together from tiles that tifffile decodes.

    Args:
        path: of the TIFF or SVS.
        workers: threads of :meth:`read_batch`.
        series: number of the picture to take; None for the largest.

    Raises:
        NotForThisReader: where its compression needs a package that is not installed.
        InputError: for pixels that are not 8-bit RGB, too large tiles or strips, or tags that cannot be read.
    """

    backend = "tifffile"

    def __init__(self, path: Path, workers: int = 1, series: int | None = None) -> None:
        self.path = path
        self.workers = workers
        self._tiles = TiffTiles(path, series=series)
        self.levels = self._tiles.levels
        self.stated_mpps = self._tiles.stated_mpps
        self.picture = self._tiles.picture
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        try:
            for level in self.levels:
                # both are kept by the page, and looked for when first asked for
                _ = tifffile.TIFF.DECOMPRESSORS[level.page.compression], level.page.is_jfif
        except (*UNREADABLE_TAGS, ImportError) as error:
            self.close()
            raise NotForThisReader(
                f"{path}: tifffile cannot decode it ({first_line(error)}); pip install 'lightmuseg[slides]'."
            ) from error
        try:
            self._refuse_transparent()
        except InputError:
            self.close()
            raise

    def _refuse_transparent(self) -> None:
        """Refuse a slide with transparent pixels in a corner or the middle; elsewhere they are refused when read."""
        level = self.levels[-1]
        places = ((0, level.width // 2, level.width - 1), (0, level.height // 2, level.height - 1))
        for xl, yl in itertools.product(*places) if level.samples == 4 else ():
            try:
                box = self._tiles.read(level, (xl, yl, 1, 1), lambda at=(xl, yl): self._assembled(level, *at, 1, 1))
            except UNDECODABLE as error:
                raise_bug(error)
                continue
            self._opaque(box)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        try:
            at, box = self.levels[level], (xl, yl, width, height)
            parts = [
                self._tiles.read(part, box, lambda part=part: self._assembled(part, *box))
                for part in at.channels or (at,)
            ]
            return np.concatenate(parts, axis=2) if at.channels else self._opaque(parts[0])
        except InputError:
            raise
        except UNDECODABLE as error:
            raise_bug(error)
            raise self.unreadable(level, xl, yl, width, height, error) from error

    def _opaque(self, pixels: np.ndarray) -> np.ndarray:
        if pixels.shape[2] == 4 and pixels[..., 3].min() < 255:
            raise UnreadablePixels(f"{self.path}: has transparent pixels, not 8-bit RGB; lay it on white first.")
        return pixels[..., :3]

    def _assembled(self, level: TiffLevel, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        box = np.empty((height, width, level.samples), np.uint8)
        rows = range(yl // level.tile_height, -(-(yl + height) // level.tile_height))
        columns = range(xl // level.tile_width, -(-(xl + width) // level.tile_width))
        for row, column in itertools.product(rows, columns):
            if not level.counts[row, column]:
                continue
            upper, left = row * level.tile_height - yl, column * level.tile_width - xl
            tile = self._tile(level, row, column)[max(0, -upper) :, max(0, -left) :]
            target = box[max(0, upper) :, max(0, left) :][: tile.shape[0], : tile.shape[1]]
            target[...] = tile[: target.shape[0], : target.shape[1]]
        return box

    def _tile(self, level: TiffLevel, row: int, column: int) -> np.ndarray:
        number = level.first_tile + row * level.counts.shape[1] + column
        key = (level.page.offset, number)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        data = self._tiles.bytes_of(level, row, column)
        segment, _, shape = level.page.decode(data, number, jpegtables=level.page.jpegtables)
        tile = segment[0, : shape[1], : shape[2]]
        if level.page.compression == APERIO_YCBCR:
            tile = np.asarray(Image.fromarray(tile, "YCbCr").convert("RGB"))
        with self._lock:
            if key not in self._cache:
                self._cache[key] = tile
                self._cached_bytes += tile.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return tile

    def close(self) -> None:
        self._tiles.close()
        super().close()
