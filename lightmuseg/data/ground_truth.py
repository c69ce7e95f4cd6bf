"""What annotators drew on a slide, pixel by pixel, as BCSS codes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from shapely import affinity

from lightmuseg.areas.area import RegionOfInterest
from lightmuseg.errors import InputError

from .bcss import CODES

OTHER, UNKNOWN = CODES["other"], CODES["outside_roi"]
# Pixels of the side of the parts in which polygons become pixels: of a large polygon a part has few edges.
BLOCK = 256


@dataclass(frozen=True)
class GroundTruth:
    """The annotation of a slide.

    Attributes:
        size0: width and height of the slide in level-0 pixels.
        area: what is annotated, in level-0 pixels; in it, what no polygon covers is "other".
        polygons: code and outline in level-0 pixels, later ones over earlier ones; what lies outside of the area does
            not count.
        mask: instead of polygons, codes uint8 [H, W] that cover the slide, of its own pixels or others.
    """

    size0: tuple[int, int]
    area: shapely.Geometry
    polygons: Sequence[tuple[int, shapely.Polygon]] = ()
    mask: np.ndarray | None = None

    def codes(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        """BCSS codes, uint8 [height, width], at the centres of a grid's pixels; 0 where nothing is annotated.

        Args:
            x0, y0: the grid's left upper corner in level-0 pixels, on the slide.
            step0: side of its pixels in level-0 pixels.
            width, height: of the grid.
        """
        if self.mask is not None:
            return self._of_mask(self.mask, x0, y0, step0, width, height)
        codes = np.empty((height, width), np.uint8)
        for y, x in itertools.product(range(0, height, BLOCK), range(0, width, BLOCK)):
            size = min(BLOCK, width - x), min(BLOCK, height - y)
            codes[y : y + size[1], x : x + size[0]] = self._drawn_in(x0 + x * step0, y0 + y * step0, step0, *size)
        return codes

    def _drawn_in(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        grid = x0, y0, step0, width, height
        known = self._known.mask(*grid)
        codes = np.where(known, np.uint8(OTHER), np.uint8(UNKNOWN))
        if known.any():
            box = shapely.box(x0, y0, x0 + width * step0, y0 + height * step0)
            for index in np.sort(self._tree.query(box)):
                codes[self._drawn[index].mask(*grid) & known] = self.polygons[index][0]
        return codes

    def _of_mask(self, mask: np.ndarray, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        rows, columns = (
            ((np.arange(n) + 0.5) * step0 + start) * side / side0
            for n, start, side, side0 in zip((height, width), (y0, x0), mask.shape, self.size0[::-1])
        )
        row_there, column_there = rows < mask.shape[0], columns < mask.shape[1]
        codes = np.full((height, width), UNKNOWN, np.uint8)
        codes[np.ix_(row_there, column_there)] = mask[
            np.ix_(rows[row_there].astype(int), columns[column_there].astype(int))
        ]
        return codes

    @cached_property
    def _known(self) -> RegionOfInterest:
        return RegionOfInterest(self.area)

    @cached_property
    def _drawn(self) -> list[RegionOfInterest]:
        return [RegionOfInterest(polygon) for _, polygon in self.polygons]

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree([polygon for _, polygon in self.polygons])

    def boxes(self, margin0: float = 0.0, least0: float = 0.0) -> list[tuple[int, int, int, int]]:
        """Rectangles (x, y, width, height) on the slide that do not overlap, one around each part of the area.

        Args:
            margin0: as much is added at each side, in level-0 pixels, as all of it is.
            least0: sides of a rectangle at least, where the slide is as large.
        """
        bounds = shapely.bounds([part for part in shapely.get_parts(self.area).tolist() if part.area > 0])
        limits = np.array(self.size0, float)
        while True:
            sides = np.minimum(np.maximum(bounds[:, 2:] - bounds[:, :2] + 2 * margin0, least0), limits)
            starts = np.clip((bounds[:, :2] + bounds[:, 2:] - sides) / 2, 0, limits - sides)
            # each whole pixels, so that neighbours do not share any
            bounds = np.hstack([np.floor(starts), np.ceil(starts + sides)])
            # which may overlap when they have grown
            parts = shapely.get_parts(shapely.union_all(shapely.box(*bounds.T)))
            if len(parts) == len(bounds):
                return [
                    tuple(one) for one in np.hstack([bounds[:, :2], bounds[:, 2:] - bounds[:, :2]]).astype(int).tolist()
                ]
            bounds, margin0 = shapely.bounds(parts), 0.0


def drawn_on(
    drawn: Sequence[tuple[int | None, shapely.Polygon]], size0: tuple[int, int], name: str
) -> tuple[list[shapely.Polygon], list[tuple[int, shapely.Polygon]]]:
    """Annotated regions, and polygons with their codes, the largest first, as QuPath lays them over each other.

    Args:
        drawn: polygons with their codes; None of an annotated region.
        size0: width and height of the slide in level-0 pixels.
        name: of the file, for messages.

    Raises:
        InputError: for a polygon beside the slide, or farther around it than it is large.
    """
    slide = shapely.box(0, 0, *size0)
    around = affinity.scale(slide, 3, 3)
    for _, polygon in drawn:
        # drawn over the image's edge perhaps
        if not (polygon.intersects(slide) and around.contains(shapely.box(*polygon.bounds))):
            raise InputError(
                f"{name}: holds a polygon within {[round(end, 1) for end in polygon.bounds]}, beside or far around the "
                f"image of {size0[0]} x {size0[1]} pixels; annotate the image it belongs to."
            )
    areas = [polygon for code, polygon in drawn if code is None]
    polygons = [(code, polygon) for code, polygon in drawn if code is not None]
    return areas, sorted(polygons, key=lambda one: -one[1].area)
