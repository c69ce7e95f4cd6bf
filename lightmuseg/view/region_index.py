"""The region of a result at a place of its slide."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Point, shape

from lightmuseg.errors import InputError, first_line

from .result_list import Result

# How the file begins; each line after it is a region, and the last one the end.
HEAD, MAX_HEAD = '{"type": "FeatureCollection", "features": [', 100
MAX_BYTES = 1_000_000_000
# Of an outline that is drawn; a region has many more where it is large.
MAX_CORNERS = 4000
# Level-0 pixels; nobody sees finer.
MIN_STEP = 0.1
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, shapely.errors.ShapelyError)


class RegionIndex:
    """The polygons of a result's regions.geojson, found by place. Coordinates are level-0 pixels.

    The file is read as :func:`lightmuseg.outputs.regions.write` writes it, a line for each region.
    """

    def __init__(self, result: Result) -> None:
        path = result.file("regions.geojson")
        self.bytes = path.stat().st_size
        if self.bytes > MAX_BYTES:
            raise InputError(f"{path}: is larger than {MAX_BYTES / 1e9:.0f} GB; its regions cannot be pointed at.")
        self._names: list[str] = []
        polygons = []
        try:
            with open(path, encoding="utf-8") as file:
                if not file.readline(MAX_HEAD).startswith(HEAD):
                    raise ValueError("it is none that lightmuseg wrote")
                for line in file:
                    text = line.strip().rstrip(",")
                    if text == "]}":
                        break
                    feature = json.loads(text)
                    polygons.append(shape(feature["geometry"]))
                    self._names.append(str(feature["properties"]["classification"]["name"]))
        except _UNREADABLE as error:
            raise InputError(f"{path}: cannot be read ({first_line(error)}); segment the slide again.") from error
        if not (np.isfinite(shapely.bounds(polygons)).all() and np.isfinite(shapely.area(polygons)).all()):
            raise InputError(f"{path}: has regions at no place; segment the slide again.")
        self._tree = shapely.STRtree(polygons)

    def close(self) -> None:
        """Free the polygons' memory."""
        del self._tree

    def at(self, x0: float, y0: float, step0: float) -> dict[str, Any] | None:
        """Class, area and outline (to ``step0``) of the region at a place; None where there is none."""
        try:
            found = self._tree.query(Point(x0, y0), predicate="intersects")
        except shapely.errors.GEOSException:
            return None
        if not len(found):
            return None
        number = int(found.min())
        region = self._tree.geometries[number]
        return {"class": self._names[number], "area0": region.area, "outline": _outline(region, step0)}


def _outline(region: Any, step0: float) -> list[list[float]]:
    """Rings as x0, y0, x0, y0 ..., with at most MAX_CORNERS corners together."""
    step0 = max(step0, MIN_STEP)
    while shapely.get_num_coordinates(simple := region.simplify(step0, preserve_topology=False)) > MAX_CORNERS:
        step0 *= 2
    polygons = shapely.get_parts(region.envelope if simple.is_empty else simple)
    rings = [ring for polygon in polygons for ring in shapely.get_rings(polygon)]
    return [shapely.get_coordinates(ring).round(1).ravel().tolist() for ring in rings]
