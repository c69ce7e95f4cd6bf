"""Where the tiles of a slide lie.

The output's grid is laid over the slide from its left upper corner; tiles begin on it, so that a tile's logits and the
output's pixels coincide.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightmuseg.areas.area import Area
from lightmuseg.errors import InputError

MAX_OVERLAP = 0.5


@dataclass(frozen=True)
class Plan:
    """The tiles of a slide, in rows from the top and in each from the left.

    Attributes:
        tile_size: side of a tile in model pixels.
        factor: model pixels to one of the output.
        width, height: of the output in its own pixels.
        xs_m, ys_m: left and upper edges of the columns and rows of tiles, in model pixels.
        tiles: (row, column) of each tile that the area wants.
    """

    tile_size: int
    factor: int
    width: int
    height: int
    xs_m: tuple[int, ...]
    ys_m: tuple[int, ...]
    tiles: tuple[tuple[int, int], ...]

    def corner_m(self, tile: tuple[int, int]) -> tuple[int, int]:
        """Left upper corner (xm, ym) of a tile."""
        return self.xs_m[tile[1]], self.ys_m[tile[0]]

    @property
    def edges_x(self) -> tuple[int, ...]:
        """Borders of the columns of cells in output pixels; a cell reaches from its tile's corner to the next one's."""
        return self._edges(self.xs_m)

    @property
    def edges_y(self) -> tuple[int, ...]:
        """Borders of the rows of cells, in output pixels."""
        return self._edges(self.ys_m)

    def part(self) -> tuple[Plan, tuple[int, int]]:
        """A plan of only the rows and columns that its tiles lie in, and where that begins: (xm, ym).

        Its tiles are the same places of the slide, so its map is that part of the whole one, to the bit.
        """
        rows, columns = ([tile[axis] for tile in self.tiles] for axis in (0, 1))
        xs_m, ys_m = (starts[min(used) : max(used) + 1] for starts, used in ((self.xs_m, columns), (self.ys_m, rows)))
        corner = xs_m[0], ys_m[0]
        ends = (
            (xs_m[-1] + self.tile_size, self.width * self.factor),
            (ys_m[-1] + self.tile_size, self.height * self.factor),
        )
        width, height = ((min(end) - start) // self.factor for end, start in zip(ends, corner))
        tiles = tuple((row - min(rows), column - min(columns)) for row, column in self.tiles)
        xs_m, ys_m = (tuple(start - first for start in starts) for starts, first in zip((xs_m, ys_m), corner))
        return Plan(self.tile_size, self.factor, width, height, xs_m, ys_m, tiles), corner

    def _edges(self, starts_m: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(start // self.factor for start in (*starts_m, starts_m[-1] + self.tile_size))


def check_overlap(overlap: float) -> None:
    """Raise an InputError for a share of a tile that neighbours cannot have in common."""
    if not 0 <= overlap <= MAX_OVERLAP:
        raise InputError(f"--overlap {overlap}: is not within 0 to {MAX_OVERLAP}; give 0.125.")


def tile_starts(size_m: int, tile_size: int, overlap: float, factor: int) -> tuple[int, ...]:
    """Starts of tiles that cover ``size_m`` pixels, as MONAI's ``SlidingWindowInferer`` lays them.

    A tile begins every ``tile_size * (1 - overlap)`` pixels, the last one where it ends at the far edge; each on a
    multiple of ``factor``.

    >>> tile_starts(1500, 512, 0.25, 2)
    (0, 384, 768, 988)
    """
    step = max(factor, int(tile_size * (1 - overlap)) // factor * factor)
    last = max(0, -(-size_m // factor) * factor - tile_size)
    return (*range(0, last, step), last)


def plan_tiles(size_m: tuple[int, int], scale: float, area: Area, tile_size: int, overlap: float, factor: int) -> Plan:
    """Tiles that cover every point of ``area``, with all neighbours that overlap it there.

    Args:
        size_m: width and height of the slide in model pixels.
        scale: level-0 pixels to one of the model's.
        area: what is wanted.
        tile_size: side of a tile in model pixels, a multiple of ``factor``.
        overlap: share of a tile that neighbours have in common, 0 to 0.5.
        factor: model pixels to one of the output.

    Raises:
        InputError: for an overlap or tile size that cannot be.
    """
    check_overlap(overlap)
    if tile_size % factor:
        raise InputError(
            f"--tile_size {tile_size}: is no multiple of {factor}, the model's pixels to one of the map's."
        )
    xs_m, ys_m = (tile_starts(size, tile_size, overlap, factor) for size in size_m)
    side0 = tile_size * scale
    tiles = tuple(
        (row, column)
        for row, ym in enumerate(ys_m)
        for column, xm in enumerate(xs_m)
        if area.covers(xm * scale, ym * scale, side0, side0)
    )
    width, height = (-(-size // factor) for size in size_m)
    return Plan(tile_size, factor, width, height, xs_m, ys_m, tiles)
