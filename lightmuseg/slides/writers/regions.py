"""The class map's regions as GeoJSON that QuPath imports."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.geometry import Polygon

from lightmuseg.data.pictures import UNANNOTATED, palette_of

from .outlines import outlines

BLOCK = 1024
UNREAD = 255
# Output pixels; up to it every pixel's middle stays inside its own region.
TOLERANCE = 0.7


def write_regions(path: Path, class_map: Any, tolerance_um: float | None = None, min_area_um2: float = 0.0) -> None:
    """Write the regions of a class map as a GeoJSON FeatureCollection of polygons with holes.

    Every region whose pixels are of one class and connected by edges is one annotation, named as in
    ``class_map.class_names``; pixels that could not be read are regions of the class "unread". Coordinates are level-0
    pixels. Neighbours share their borders.

    Args:
        path: of the new file.
        class_map: width, height, mpp, downsample, class_names and bands; see the engine.
        tolerance_um: at most so far do the polygons leave the pixels' borders; None for 0.7 output pixels, by which
            every pixel's middle stays inside its own region.
        min_area_um2: smaller regions are left out, and smaller holes filled.
    """
    tolerance = TOLERANCE if tolerance_um is None else tolerance_um / class_map.mpp
    smallest = min_area_um2 / class_map.mpp**2
    colours = palette_of(class_map.class_names)
    kinds = {
        index + 1: {"name": name, "color": list(colours[index + 1])}
        for index, name in enumerate(class_map.class_names)
    }
    kinds[UNREAD] = {"name": "unread", "color": list(UNANNOTATED)}
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, region in regions(class_map, tolerance, BLOCK):
            region = _without_small_parts(region, smallest)
            if region is not None:
                file.write(separator + _feature(region, class_map.downsample, kinds[value]))
                separator = ",\n"
        file.write("\n]}\n")


def regions(class_map: Any, tolerance: float, block: int) -> Iterator[tuple[int, Polygon]]:
    """Class index and polygon, in output pixels, of each region but those of class 0, as soon as it is complete.

    Args:
        tolerance: output pixels; see :func:`outlines`.
        block: side of the blocks of which one at a time is in memory, next to the regions that are not complete.
    """
    open_regions = _OpenRegions()
    above_pixels = np.zeros(class_map.width, dtype=np.uint8)
    above = np.full(class_map.width, -1)
    y = 0
    for band in class_map.bands(block):
        below = np.empty(class_map.width, dtype=np.intp)
        for x in range(0, class_map.width, block):
            pixels = band[:, x : x + block]
            if not pixels.any():
                below[x : x + block] = -1
                left_pixels = None
                continue
            found = outlines(pixels, tolerance)
            sides = np.concatenate([found.top, found.bottom, found.left, found.right])
            inner = np.ones(len(found.polygons), dtype=bool)
            inner[sides] = False
            polygons = shapely.transform(found.polygons, lambda points, x=x, y=y: points + (x, y))
            for index in np.flatnonzero(inner & (found.classes > 0)):
                yield int(found.classes[index]), polygons[index]
            ids = np.full(len(polygons), -1)
            for index in np.flatnonzero(~inner & (found.classes > 0)):
                ids[index] = open_regions.add(int(found.classes[index]), polygons[index])
            top, bottom, left, right = (ids[s] for s in (found.top, found.bottom, found.left, found.right))
            span = slice(x, x + block)
            open_regions.join(above[span], top, (above_pixels[span] == pixels[0]) & (top >= 0))
            if x and left_pixels is not None:
                open_regions.join(left_ids, left, (left_pixels == pixels[:, 0]) & (left >= 0))
            left_pixels, left_ids = pixels[:, -1], right
            below[span] = bottom
        yield from open_regions.complete(below)
        above, above_pixels = below, band[-1]
        y += len(band)
    yield from open_regions.complete(np.empty(0, dtype=np.intp))


class _OpenRegions:
    def __init__(self) -> None:
        self.parents: dict[int, int] = {}
        self.parts: dict[int, tuple[int, list[Polygon]]] = {}
        self.next = 0

    def add(self, value: int, part: Polygon) -> int:
        key = self.next
        self.next += 1
        self.parents[key] = key
        self.parts[key] = (value, [part])
        return key

    def find(self, key: int) -> int:
        while self.parents[key] != key:
            self.parents[key] = key = self.parents[self.parents[key]]
        return key

    def join(self, a: np.ndarray, b: np.ndarray, touching: np.ndarray) -> None:
        for pair in np.unique(np.stack([a[touching], b[touching]], axis=1), axis=0):
            one, other = self.find(int(pair[0])), self.find(int(pair[1]))
            if one != other:
                if len(self.parts[one][1]) < len(self.parts[other][1]):
                    one, other = other, one
                self.parents[other] = one
                self.parts[one][1].extend(self.parts.pop(other)[1])

    def complete(self, border: np.ndarray) -> Iterator[tuple[int, Polygon]]:
        still = {self.find(int(key)) for key in np.unique(border[border >= 0])}
        for key in [key for key in self.parts if key not in still]:
            value, parts = self.parts.pop(key)
            yield value, _joined(parts)
        # only the keys along the border can be asked for again
        self.parents = {int(k): self.find(int(k)) for k in np.unique(border[border >= 0])} | {k: k for k in still}


def _joined(parts: list[Polygon]) -> Polygon:
    if len(parts) == 1:
        return parts[0]
    # holes do not touch the blocks' sides, so only shells need joining
    shell = shapely.union_all([Polygon(part.exterior) for part in parts])
    holes = [hole for part in parts for hole in part.interiors]
    return Polygon(shell.exterior, [*shell.interiors, *holes])


def _without_small_parts(region: Polygon, smallest: float) -> Polygon | None:
    if region.area < smallest:
        return None
    holes = [hole for hole in region.interiors if Polygon(hole).area >= smallest]
    return region if len(holes) == len(region.interiors) else Polygon(region.exterior, holes)


def _feature(region: Polygon, downsample: float, kind: dict[str, Any]) -> str:
    scaled = shapely.transform(region, lambda points: points * downsample)
    rounded = shapely.transform(scaled, lambda points: points.round(2))
    # rounding can squash a sliver between two long sides
    region = rounded if rounded.is_valid else scaled
    geometry = {
        "type": "Polygon",
        "coordinates": [shapely.get_coordinates(ring).tolist() for ring in (region.exterior, *region.interiors)],
    }
    text = json.dumps(geometry)
    feature = {
        "type": "Feature",
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{kind['name']} {text}")),
        "geometry": "@",
        "properties": {"objectType": "annotation", "classification": kind, "isLocked": False},
    }
    return json.dumps(feature, ensure_ascii=False).replace('"@"', text, 1)
