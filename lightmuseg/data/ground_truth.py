"""What annotators drew on a slide, pixel by pixel, as BCSS codes."""

from __future__ import annotations

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
        known = self._known.mask(x0, y0, step0, width, height)
        codes = np.where(known, np.uint8(OTHER), np.uint8(UNKNOWN))
        if known.any():
            end0 = x0 + width * step0, y0 + height * step0
            for index in np.sort(self._tree.query(shapely.box(x0, y0, *end0))):
                code, _ = self.polygons[index]
                # of the grid the part around the polygon
                bounds = self._drawn[index].bounds0
                left, upper = (max(0, int((n - start) / step0) - 1) for n, start in zip(bounds[:2], (x0, y0)))
                right, lower = (
                    min(limit, int((n - start) / step0) + 2)
                    for n, start, limit in zip(bounds[2:], (x0, y0), (width, height))
                )
                part = slice(upper, lower), slice(left, right)
                corner0 = x0 + left * step0, y0 + upper * step0
                inside = self._drawn[index].mask(*corner0, step0, right - left, lower - upper)
                codes[part][inside & known[part]] = code
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

    def boxes(self, margin0: float = 0.0) -> list[tuple[int, int, int, int]]:
        """Rectangles (x, y, width, height) that do not overlap, one around each part of the area and its margin.

        Args:
            margin0: as much is added at each side; the slide's edge ends it. In level-0 pixels, as all of it is.
        """
        width0, height0 = self.size0
        bounds = shapely.bounds([part for part in shapely.get_parts(self.area).tolist() if part.area > 0])
        bounds += np.array([-margin0, -margin0, margin0, margin0])
        while True:
            parts = shapely.get_parts(shapely.union_all(shapely.box(*bounds.T)))
            if len(parts) == len(bounds):
                break
            # which may overlap others now
            bounds = shapely.bounds(parts)
        corners = np.clip([np.floor(bounds[:, :2]), np.ceil(bounds[:, 2:])], 0, [width0, height0]).astype(int)
        return [tuple(one) for one in np.hstack([corners[0], corners[1] - corners[0]]).tolist()]


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
