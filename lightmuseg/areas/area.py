"""Which part of a slide is analysed.

All coordinates are level-0 pixels; the slide's left upper corner is (0, 0).
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TypeAlias

import numpy as np
import shapely

# Left, upper, right and lower edge.
Bounds: TypeAlias = tuple[float, float, float, float]

# Points are moved by this much to the right and down before they are looked up in polygons, so that one on a left or
# upper edge is inside and one on a right or lower edge is not. In level-0 pixels: far less than anybody draws, far
# more than rounding.
EDGE = 1e-6
# An intersection's area is counted on a grid of so many points along the longer side, in blocks.
GRID, BLOCK = 4096, 512


class Area(ABC):
    """A set of points of a slide.

    Attributes:
        area0: in square level-0 pixels.
        bounds0: a box that holds all of it.
        warnings: what a reader of the results should know of how it came about.
    """

    area0: float
    bounds0: Bounds
    warnings: tuple[str, ...] = ()

    @abstractmethod
    def covers(self, x0: float, y0: float, width0: float, height0: float) -> bool:
        """Whether any point of the box may be wanted; False only where none is."""

    @abstractmethod
    def mask(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        """bool [height, width]: whether the centre of each pixel of a grid is wanted.

        Args:
            x0, y0: the grid's left upper corner; the centre of pixel (i, j) is at ``x0 + (j + 0.5) * step0``,
                ``y0 + (i + 0.5) * step0``.
            step0: side of a pixel.
            width, height: of the grid, in its own pixels.
        """


class WholeSlide(Area):
    """Every point of a slide of a width and height, and the pixels that its right and lower edges cut."""

    def __init__(self, width0: int, height0: int) -> None:
        self.bounds0 = (0, 0, width0, height0)
        self.area0 = float(width0) * height0

    def covers(self, x0: float, y0: float, width0: float, height0: float) -> bool:
        left, upper, right, lower = self.bounds0
        return x0 < right and y0 < lower and x0 + width0 > left and y0 + height0 > upper

    def mask(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        xs0, ys0 = _centres(x0, y0, step0, width, height)
        left, upper, right, lower = self.bounds0
        half = step0 / 2
        return ((ys0 >= upper) & (ys0 - half < lower))[:, None] & ((xs0 >= left) & (xs0 - half < right))


class TissueMask(Area):
    """The points under the set pixels of a grid: bool [h, w] from the slide's left upper corner, ``step0`` a pixel."""

    def __init__(self, grid: np.ndarray, step0: float) -> None:
        self.step0 = step0
        # around it nothing is wanted: one pixel of that at each side stands for all outside
        self._framed = np.pad(grid, 1)
        self.bounds0 = (0, 0, grid.shape[1] * step0, grid.shape[0] * step0)
        self.area0 = float(np.count_nonzero(grid)) * step0**2

    @property
    def grid(self) -> np.ndarray:
        """bool [h, w]."""
        return self._framed[1:-1, 1:-1]

    def covers(self, x0: float, y0: float, width0: float, height0: float) -> bool:
        left, upper = (max(0, math.floor(start0 / self.step0)) for start0 in (x0, y0))
        right, lower = (max(0, math.ceil(end0 / self.step0)) for end0 in (x0 + width0, y0 + height0))
        return bool(self.grid[upper:lower, left:right].any())

    def mask(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        rows, columns = (
            (centres0 / self.step0 + 1).clip(0, side - 1).astype(np.intp)
            for centres0, side in zip(_centres(x0, y0, step0, width, height)[::-1], self._framed.shape)
        )
        return self._framed[rows[:, None], columns]


class RegionOfInterest(Area):
    """The points inside a valid polygon or multipolygon; of its edges the left and the upper ones."""

    def __init__(self, shape: shapely.Polygon | shapely.MultiPolygon, warnings: tuple[str, ...] = ()) -> None:
        self.warnings = warnings
        shapely.prepare(shape)
        self.shape = shape
        self.bounds0 = shape.bounds
        self.area0 = shape.area

    def covers(self, x0: float, y0: float, width0: float, height0: float) -> bool:
        box = shapely.box(x0 + EDGE, y0 + EDGE, x0 + width0 - EDGE, y0 + height0 - EDGE)
        return bool(shapely.intersects(self.shape, box))

    def mask(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        if not self.covers(x0, y0, width * step0, height * step0):
            return np.zeros((height, width), bool)
        box = x0, y0, x0 + width * step0, y0 + height * step0
        if shapely.contains(self.shape, shapely.box(*box)):
            return np.ones((height, width), bool)
        # the part around the grid has far fewer edges to compare with
        part = shapely.clip_by_rect(self.shape, *box)
        shapely.prepare(part)
        xs0, ys0 = _centres(x0, y0, step0, width, height)
        return shapely.contains_xy(part, *np.meshgrid(xs0 + EDGE, ys0 + EDGE))


class Intersection(Area):
    """The points that all of one or more areas want; those that are quick to ask come first."""

    def __init__(self, areas: Sequence[Area]) -> None:
        self._areas = tuple(areas)
        self.warnings = tuple(warning for area in areas for warning in area.warnings)
        lefts, uppers, rights, lowers = zip(*(area.bounds0 for area in areas))
        left, upper = max(lefts), max(uppers)
        self.bounds0 = (left, upper, max(left, min(rights)), max(upper, min(lowers)))

    @cached_property
    def area0(self) -> float:
        """Counted on a fine grid over what the areas' boxes have in common."""
        left, upper, right, lower = self.bounds0
        step0 = max(right - left, lower - upper) / GRID
        if min(right - left, lower - upper) <= 0:
            return 0.0
        width, height = (max(1, round(side0 / step0)) for side0 in (right - left, lower - upper))
        wanted = 0
        for y, x in itertools.product(range(0, height, BLOCK), range(0, width, BLOCK)):
            block = min(BLOCK, width - x), min(BLOCK, height - y)
            wanted += np.count_nonzero(self.mask(left + x * step0, upper + y * step0, step0, *block))
        return (right - left) * (lower - upper) * wanted / (width * height)

    def covers(self, x0: float, y0: float, width0: float, height0: float) -> bool:
        return all(area.covers(x0, y0, width0, height0) for area in self._areas)

    def mask(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        result = np.ones((height, width), bool)
        for area in self._areas:
            result &= area.mask(x0, y0, step0, width, height)
            if not result.any():
                break
        return result


def _centres(x0: float, y0: float, step0: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Of a grid's columns and rows."""
    return x0 + (np.arange(width) + 0.5) * step0, y0 + (np.arange(height) + 0.5) * step0
