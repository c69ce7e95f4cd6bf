"""Where the tiles of a TIFF's page lie in the file."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.files import read_at

from .jpeg import with_tables
from .tiff import is_contiguous

# A tile is decoded in one piece, whatever little of it is wanted.
MAX_TILE_PIXELS = 64_000_000
# In Aperio's first kind the pixels are YCbCr, whatever the tags say.
APERIO_YCBCR = tifffile.COMPRESSION.APERIO_JP2000_YCBC
JPEG2000 = (APERIO_YCBCR, tifffile.COMPRESSION.APERIO_JP2000_RGB, tifffile.COMPRESSION.JPEG2000)


class TileGrid:
    """The tiles of a page, or its strips; of a page that stores each channel by itself those of channel ``plane``.

    Attributes:
        tile_width, tile_height, samples: size in pixels and channels of a tile.
        offsets, counts: int64 [rows, columns], where the bytes of each tile lie.
        first: number of the first tile in the page.
        file_bytes: length of the file.

    Raises:
        InputError: where there cannot be such a grid; with ``layers`` the tiles of other focal planes may follow.
    """

    def __init__(self, path: Path, page: tifffile.TiffPage, plane: int = 0, layers: bool = False) -> None:
        self.page = page
        self._descriptor = page.parent.filehandle.fileno()
        self.file_bytes = os.fstat(self._descriptor).st_size
        width, height = page.imagewidth, page.imagelength
        is_tiled, contiguous = page.is_tiled, is_contiguous(page)
        self.tile_width = page.tilewidth if is_tiled else width
        self.tile_height = page.tilelength if is_tiled else min(page.rowsperstrip, height)
        self.samples = page.samplesperpixel if contiguous else 1
        if min(width, height, self.tile_width, self.tile_height) < 1:
            raise InputError(f"{path}: says that it is {width} x {height} pixels; export it again.")
        if self.tile_width * self.tile_height > MAX_TILE_PIXELS:
            raise InputError(
                f"{path}: a {'tile' if is_tiled else 'strip'} is {self.tile_width} x {self.tile_height} pixels, more "
                f"than the {MAX_TILE_PIXELS / 1e6:.0f} megapixels that are decoded in one piece; save it with tiles "
                "of 256 or 512 pixels."
            )
        shape = math.ceil(height / self.tile_height), math.ceil(width / self.tile_width)
        places = [np.asarray(place, np.int64) for place in (page.dataoffsets, page.databytecounts)]
        tiles = math.prod(shape)
        needed = tiles if contiguous else tiles * page.samplesperpixel
        if not (needed == len(places[0]) == len(places[1]) or (layers and needed < len(places[0]) == len(places[1]))):
            raise InputError(
                f"{path}: {width} x {height} pixels are {needed} tiles, but it tells of {len(places[0])}; export it "
                "again."
            )
        self.first = plane * tiles
        self.offsets, self.counts = (place[self.first :][:tiles].reshape(shape) for place in places)

    def bytes_of(self, row: int, column: int, most: int | None = None) -> bytes:
        """The compressed bytes of a tile, at most so many; fewer where the file ends before."""
        offset, count = int(self.offsets[row, column]), int(self.counts[row, column])
        return read_at(self._descriptor, max(0, min(count, most or count, self.file_bytes - offset)), offset)

    def pixels_of(self, row: int, column: int, data: bytes) -> np.ndarray:
        """A tile's pixels [h, w] or [h, w, channels], decoded without optional packages as far as Pillow can.

        Which colours the file means plays no part.
        """
        page = self.page
        if page.compression not in (tifffile.COMPRESSION.JPEG, *JPEG2000):
            return page.decode(data, self.first + row * self.counts.shape[1] + column)[0][0]
        with Image.open(io.BytesIO(with_tables(data, page.jpegtables))) as image:
            if max(image.size) > max(self.tile_width, self.tile_height):
                raise ValueError("its tile is larger than it says")
            return np.asarray(image)
