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

    Every region, pixels of one class that are connected by edges, is one annotation with its class's name and colour;
    pixels that could not be read are regions of the class "unread". Coordinates are level-0 pixels. Neighbours share
    their borders.

    Args:
        path: of the new file.
        class_map: width, height, mpp, downsample, class_names and bands; see the engine.
        tolerance_um: at most so far do the polygons leave the pixels' borders; None for 0.7 output pixels, by which
            every pixel's middle stays inside its own region.
        min_area_um2: smaller regions are left out, and smaller holes filled.
    """
    tolerance = TOLERANCE if tolerance_um is None else tolerance_um / class_map.mpp
    smallest = min_area_um2 * (class_map.downsample / class_map.mpp) ** 2
    names = dict(enumerate(class_map.class_names, start=1)) | {UNREAD: "unread"}
    colours = dict(enumerate(palette_of(class_map.class_names))) | {UNREAD: UNANNOTATED}
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, region in regions(class_map, tolerance):
            kept = _without_small_parts(region, smallest)
            if kept is not None:
                file.write(separator + _feature(kept, names[value], colours[value]))
                separator = ",\n"
        file.write("\n]}\n")


def regions(class_map: Any, tolerance: float, block: int = BLOCK) -> Iterator[tuple[int, Polygon]]:
    """Class index and polygon, in level-0 pixels, of each region but those of class 0, as soon as it is complete.

    Args:
        class_map: width, downsample and bands; see the engine.
        tolerance: output pixels; see :func:`outlines`.
        block: side of the blocks of which one at a time is in memory, next to the regions that are not complete.
    """
    unfinished = _UnfinishedRegions()
    # the row of pixels above the band, and the part of a region that each belongs to; -1 for none
    above, parts_above = np.zeros(class_map.width, np.uint8), np.full(class_map.width, -1)
    yo = 0
    for band in class_map.bands(block):
        parts_below = np.full(class_map.width, -1)
        left, parts_left = np.zeros(len(band), np.uint8), np.full(len(band), -1)
        for xo in range(0, class_map.width, block):
            here = slice(xo, xo + block)
            classes = band[:, here]
            if not classes.any():
                left, parts_left = classes[:, -1], np.full(len(band), -1)
                continue
            found = outlines(classes, tolerance, xo, yo, class_map.downsample)
            touching = np.zeros(len(found.polygons), dtype=bool)
            for side in (found.top, found.bottom, found.left, found.right):
                touching[side] = True
            numbers = np.full(len(found.polygons), -1)
            for index in np.flatnonzero(found.classes):
                value, polygon = int(found.classes[index]), found.polygons[index]
                if touching[index]:
                    numbers[index] = unfinished.add(value, polygon)
                else:
                    yield value, polygon
            unfinished.join(parts_above[here], numbers[found.top], above[here] == classes[0])
            unfinished.join(parts_left, numbers[found.left], left == classes[:, 0])
            left, parts_left = classes[:, -1], numbers[found.right]
            parts_below[here] = numbers[found.bottom]
        yield from unfinished.completed(parts_below)
        above, parts_above = band[-1], parts_below
        yo += len(band)
    yield from unfinished.completed(np.empty(0, dtype=np.intp))


class _UnfinishedRegions:
    """Regions that a later block may touch: the parts of each, one from every block that it lies in.

    Parts have numbers; ``roots`` leads from one to another of the same region, and at last to the one by which
    ``regions`` knows it.
    """

    def __init__(self) -> None:
        self.regions: dict[int, tuple[int, list[Polygon]]] = {}
        self.roots: dict[int, int] = {}
        self.count = 0

    def add(self, value: int, part: Polygon) -> int:
        self.count += 1
        self.roots[self.count] = self.count
        self.regions[self.count] = (value, [part])
        return self.count

    def join(self, numbers: np.ndarray, others: np.ndarray, alike: np.ndarray) -> None:
        """Make one region of the parts on the two sides of a line, wherever pixels on both sides are ``alike``."""
        pairs = np.stack([numbers, others], axis=1)[alike & (others >= 0)]
        for pair in np.unique(pairs, axis=0).tolist():
            root, other = map(self._root, pair)
            if root != other:
                if len(self.regions[root][1]) < len(self.regions[other][1]):
                    root, other = other, root
                self.roots[other] = root
                self.regions[root][1].extend(self.regions.pop(other)[1])

    def completed(self, border: np.ndarray) -> Iterator[tuple[int, Polygon]]:
        """Take out the regions that have no part among those along ``border``."""
        roots = {number: self._root(number) for number in np.unique(border[border >= 0]).tolist()}
        self.roots = roots | {root: root for root in roots.values()}
        for root in [root for root in self.regions if root not in self.roots]:
            value, parts = self.regions.pop(root)
            yield value, _joined(parts)

    def _root(self, number: int) -> int:
        while self.roots[number] != number:
            self.roots[number] = number = self.roots[self.roots[number]]
        return number


def _joined(parts: list[Polygon]) -> Polygon:
    if len(parts) == 1:
        return parts[0]
    # holes do not touch the sides of blocks, so only the shells need joining
    shell = shapely.union_all([Polygon(part.exterior) for part in parts])
    return Polygon(shell.exterior, [*shell.interiors, *(hole for part in parts for hole in part.interiors)])


def _without_small_parts(region: Polygon, smallest: float) -> Polygon | None:
    if region.area < smallest:
        return None
    holes = [hole for hole in region.interiors if Polygon(hole).area >= smallest]
    return region if len(holes) == len(region.interiors) else Polygon(region.exterior, holes)


def _feature(region: Polygon, name: str, colour: tuple[int, int, int]) -> str:
    geometry = shapely.to_geojson(region)
    head = {"type": "Feature", "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {geometry}"))}
    classification = {"name": name, "color": list(colour)}
    properties = {"objectType": "annotation", "classification": classification, "isLocked": False}
    # the geometry is text already, and may be long
    return (
        f'{json.dumps(head)[:-1]}, "geometry": {geometry}, "properties": {json.dumps(properties, ensure_ascii=False)}}}'
    )
