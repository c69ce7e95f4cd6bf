"""The class map as tiles of colour that lie over the slide's.

Frames: ``xo, yo`` are pixels of the map, ``xt, yt`` of one of its levels, which halve.
"""

from __future__ import annotations

import io
import itertools
import math
import zlib
from collections.abc import Sequence

import numpy as np
import tifffile
from PIL import Image

from lightmuseg.classes import UNREAD, colour_table
from lightmuseg.errors import InputError, first_line
from lightmuseg.files import read_at
from lightmuseg.pictures import STRIPE_COLOUR, stripes
from lightmuseg.slides.finished import MAPS
from lightmuseg.wsi.tiff import UNREADABLE_TAGS, raise_bug

from .result_list import Result
from .zoom_tiles import Tile, TileLevels, finest_level

# The index of the other colour of the stripes of what could not be read.
STRIPE = 254
MAX_TILE_SIDE = 2048
MAX_LEVELS = 24
_PLAIN = {tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE}


class ClassMap:
    """The pyramid in a result's classes.tif, of which only the tiles that are asked for are read.

    An InputError says that there is none, or that it is not the map that the result's record describes.
    """

    def __init__(self, result: Result) -> None:
        self.path = result.file(*MAPS)
        try:
            self._file = tifffile.TiffFile(self.path)
        except UNREADABLE_TAGS as error:
            raise self._foreign(first_line(error)) from error
        try:
            self._pages = self._checked_pages(*result.map_size)
        except UNREADABLE_TAGS as error:
            self.close()
            if isinstance(error, InputError):
                raise
            raise_bug(error)
            raise self._foreign(first_line(error)) from error
        finest = finest_level(*result.map_size)
        self.levels = TileLevels(*result.map_size, max(0, finest - len(self._pages) + 1), finest)

    def _foreign(self, why: str) -> InputError:
        return InputError(f"{self.path}: is no class map of this result ({why}); segment the slide again.")

    def _checked_pages(self, width: int, height: int) -> list[tifffile.TiffPage]:
        base = self._file.pages[0]
        lower = base.pages if base.pages else itertools.islice(self._file.pages, 1, None)
        pages: list[tifffile.TiffPage] = []
        for page in itertools.chain([base], itertools.islice(lower, MAX_LEVELS)):
            size = tuple(math.ceil(side / 2 ** len(pages)) for side in (width, height))
            if not isinstance(page, tifffile.TiffPage) or (page.imagewidth, page.imagelength) != size:
                break
            if not (page.is_tiled and page.bitspersample == 8 and page.samplesperpixel == 1):
                raise self._foreign("its pixels are not one byte in tiles")
            if page.compression not in _PLAIN or max(page.tilewidth, page.tilelength) > MAX_TILE_SIDE:
                raise self._foreign("its tiles are compressed otherwise, or too large")
            tiles = math.ceil(size[0] / page.tilewidth) * math.ceil(size[1] / page.tilelength)
            if not len(page.dataoffsets) == len(page.databytecounts) == tiles:
                raise self._foreign("its tiles are not all there")
            pages.append(page)
        if not pages:
            raise self._foreign(f"it is {base.imagewidth} x {base.imagelength} pixels, not {width} x {height}")
        return pages

    def classes(self, tile: Tile) -> np.ndarray:
        """Class indices uint8 [H, W] of a tile of :attr:`levels`."""
        page = self._pages[tile.halvings]
        left, upper, right, lower = tile.box
        first_row, first_column = upper // page.tilelength, left // page.tilewidth
        across = math.ceil(page.imagewidth / page.tilewidth)
        tiles = np.block([
            [self._tile(page, row * across + column) for column in range(first_column, -(-right // page.tilewidth))]
            for row in range(first_row, -(-lower // page.tilelength))
        ])  # fmt: skip
        yt, xt = first_row * page.tilelength, first_column * page.tilewidth
        return tiles[upper - yt : lower - yt, left - xt : right - xt]

    def _tile(self, page: tifffile.TiffPage, number: int) -> np.ndarray:
        wanted = page.tilelength * page.tilewidth
        # compressed bytes are hardly more than plain ones, whatever the file says
        count = min(page.databytecounts[number], 2 * wanted)
        data = read_at(self._file.filehandle.fileno(), count, page.dataoffsets[number])
        if page.compression != tifffile.COMPRESSION.NONE:
            try:
                # never more than a tile, whatever the bytes unfold to
                data = zlib.decompressobj().decompress(data, wanted)
            except zlib.error as error:
                raise self._foreign(f"a tile cannot be decoded, {first_line(error)}") from error
        if len(data) < wanted:
            raise self._foreign("a tile is cut short")
        return np.frombuffer(data, np.uint8, wanted).reshape(page.tilelength, page.tilewidth)

    def close(self) -> None:
        """Let the file go."""
        self._file.close()


def map_tile(classes: np.ndarray, class_names: Sequence[str], shown: frozenset[int]) -> bytes:
    """PNG of class indices uint8 [H, W] in their colours; only ``shown`` ones are seen, the unread (255) striped."""
    if UNREAD in shown:
        classes = np.where((classes == UNREAD) & stripes(*classes.shape), np.uint8(STRIPE), classes)
        shown = shown | {STRIPE}
    colours = colour_table(class_names)
    colours[STRIPE] = STRIPE_COLOUR
    image = Image.fromarray(classes).convert("P")
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    opacities = bytes(255 if index in shown else 0 for index in range(256))
    image.save(buffer, "PNG", transparency=opacities, compress_level=1)
    return buffer.getvalue()
