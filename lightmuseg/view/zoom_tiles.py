"""A slide as square tiles of levels that halve, as OpenSeadragon asks for them.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xt, yt`` pixels of a level of tiles. Level ``max_level`` is level
0 itself, each below has half its pixels along both axes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.pictures import hatched
from lightmuseg.wsi.low_power import low_power_of
from lightmuseg.wsi.readers import SlideReader, open_slide
from lightmuseg.wsi.resampling import level_for

from .result_list import Result

TILE = 512
JPEG_QUALITY = 85
# Pixels along one side of a slide's level that are read for one tile; 50 MB.
MAX_READ = 4096


@dataclass(frozen=True)
class Tile:
    """How often a picture is halved for a tile, and its (left, upper, right, lower) edge in pixels of that level."""

    halvings: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class TileLevels:
    """The size of the finest level of tiles of a picture, and the numbers of the coarsest and the finest one."""

    width: int
    height: int
    min_level: int
    max_level: int

    def tile(self, level: int, column: int, row: int) -> Tile:
        """The tile at a column and row of a level; an InputError where there is none."""
        left, upper = column * TILE, row * TILE
        if self.min_level <= level <= self.max_level:
            halvings = self.max_level - level
            width, height = (math.ceil(side / 2**halvings) for side in (self.width, self.height))
            if left < width and upper < height:
                return Tile(halvings, (left, upper, min(left + TILE, width), min(upper + TILE, height)))
        raise InputError("there is no such tile")


def finest_level(width: int, height: int) -> int:
    """The number of a level of this size, where that of one pixel is 0.

    >>> finest_level(1, 1), finest_level(512, 300), finest_level(513, 300)
    (0, 9, 10)
    """
    return math.ceil(math.log2(max(width, height)))


def open_result_slide(result: Result) -> SlideReader:
    """The slide of a result; an InputError where nothing opens it, or it has another size than was segmented."""
    if not (result.slide.is_file() or result.slide.is_dir()):
        raise InputError(f"{result.slide}: is not there; put it back to see it under its map.")
    reader = open_slide(result.slide, result.backend, result.level0_mpp, series=result.series)
    size = reader.levels[0].width, reader.levels[0].height
    if size != result.level0_size:
        reader.close()
        raise InputError(
            f"{result.slide}: is {size[0]} x {size[1]} pixels, but {result.level0_size[0]} x {result.level0_size[1]} "
            "were segmented; segment it again."
        )
    return reader


def levels_of(reader: SlideReader) -> TileLevels:
    """The levels of a slide's tiles; without the coarsest where a slide has no level to make them from cheaply."""
    base = reader.levels[0]
    finest = coarsest = finest_level(base.width, base.height)
    while coarsest > 0:
        factor = 2.0 ** (finest - coarsest + 1)
        if TILE * factor / reader.levels[_index(reader, factor)].downsample > MAX_READ:
            break
        coarsest -= 1
    return TileLevels(base.width, base.height, coarsest, finest)


def slide_tile(reader: SlideReader, tile: Tile) -> bytes:
    """JPEG of a tile; what neither its level nor a finer one of the slide gives is striped."""
    factor = 2**tile.halvings
    picture = low_power_of(reader, _index(reader, factor), factor, tile.box, coarser=False)
    buffer = io.BytesIO()
    shown = Image.fromarray(hatched(picture.pixels, picture.unread))
    shown.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _index(reader: SlideReader, factor: float) -> int:
    return level_for([level.downsample for level in reader.levels], factor * (1 + 1e-3))
