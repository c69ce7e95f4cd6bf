"""The class map's regions as GeoJSON that QuPath imports."""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry import Polygon

from lightmuseg.classes import colour_table, meanings_of
from lightmuseg.engine.rows import Rows

from .outlines import outlines
from .segmented import SegmentedSlide

BLOCK = 1024
# Output pixels; up to it every pixel's middle stays inside its own region.
TOLERANCE = 0.7


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write the regions of a class map as a GeoJSON FeatureCollection of polygons with holes.

    Every region, pixels of one class that are connected by edges, is one annotation with its class's name and colour;
    pixels that could not be read are regions of the class "unread". Coordinates are level-0 pixels. Neighbours share
    their borders.
    """
    class_map = slide.class_map
    tolerance = TOLERANCE if slide.tolerance_um is None else slide.tolerance_um / class_map.mpp
    names, colours = meanings_of(class_map.class_names), colour_table(class_map.class_names).tolist()
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        separator = "\n"
        for value, rings in _regions(class_map, tolerance, BLOCK):
            file.write(separator)
            file.writelines(_feature(rings, names[value], colours[value]))
            separator = ",\n"
        file.write("\n]}\n")


def regions(class_map: Rows, tolerance: float, block: int = BLOCK) -> Iterator[tuple[int, Polygon]]:
    """Class index and polygon, in level-0 pixels, of each region but those of class 0, as soon as it is complete.

    Args:
        class_map: width, downsample and bands; see the engine.
        tolerance: output pixels; see :func:`outlines`.
        block: side of the blocks of which one at a time is in memory, next to the regions that are not complete.
    """
    for value, rings in _regions(class_map, tolerance, block):
        shell, *holes = (ring for some in rings for ring in some)
        yield value, Polygon(shell, holes)


def _regions(class_map: Rows, tolerance: float, block: int) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Class index and rings of each region, the shell first: of a large one not all in memory at once."""
    unfinished = _UnfinishedRegions()
    # the row of pixels above the band, and the part of a region that each belongs to; -1 for none
    above, parts_above = np.zeros(class_map.width, np.uint8), np.full(class_map.width, -1)
    yo = 0
    for band in class_map.bands(block):
        parts_below = np.full(class_map.width, -1)
        left, parts_left = np.zeros(len(band), np.uint8), np.full(len(band), -1)
        for xo in range(0, class_map.width, block):
            across = slice(xo, xo + block)
            classes = np.ascontiguousarray(band[:, across])
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
                    yield value, iter([shapely.get_rings(polygon)])
            unfinished.join(parts_above[across], numbers[found.top], above[across] == classes[0])
            unfinished.join(parts_left, numbers[found.left], left == classes[:, 0])
            left, parts_left = classes[:, -1], numbers[found.right]
            parts_below[across] = numbers[found.bottom]
        yield from unfinished.completed(parts_below)
        above, parts_above = band[-1].copy(), parts_below
        yo += len(band)
        # it may be large, and the next one comes before its name is given away
        del band
    yield from unfinished.completed(np.empty(0, dtype=np.intp))


class _UnfinishedRegions:
    """Regions that a later block may touch: the parts of each, one from every block that it lies in.

    Parts have numbers; ``roots`` leads from one to another of the same region, and at last to the one by which
    ``regions`` knows it.
    """

    def __init__(self) -> None:
        self.regions: dict[int, tuple[int, list[_Part]]] = {}
        self.roots: dict[int, int] = {}
        self.count = 0

    def add(self, value: int, part: Polygon) -> int:
        self.count += 1
        self.roots[self.count] = self.count
        self.regions[self.count] = (value, [_Part(part)])
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

    def completed(self, border: np.ndarray) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
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


class _Part:
    """What a block has of a region: the shell, and the holes packed, as they are final and may be very many."""

    def __init__(self, part: Polygon) -> None:
        self.shell = Polygon(part.exterior)
        self._holes = zlib.compress(shapely.to_wkb(shapely.multilinestrings(shapely.get_rings(part)[1:])), level=1)

    def holes(self) -> np.ndarray:
        """The rings of the holes."""
        return shapely.get_parts(shapely.from_wkb(zlib.decompress(self._holes)))


def _joined(parts: list[_Part]) -> Iterator[np.ndarray]:
    """The rings of a region, the shell first."""
    # holes do not touch the sides of blocks, so only the shells need joining
    (shell,) = shapely.get_parts(shapely.union_all([part.shell for part in parts]))
    yield shapely.get_rings(shell)
    for part in parts:
        yield part.holes()


def _feature(rings: Iterator[np.ndarray], name: str, colour: list[int]) -> Iterator[str]:
    """The text of a feature, piece by piece; its id, of the name and the geometry, follows these."""
    digest = hashlib.sha1(uuid.NAMESPACE_OID.bytes + name.encode(), usedforsecurity=False)
    yield '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": ['
    separator = ""
    for some in rings:
        if len(some):
            # a polygon's rings are written as several lines are
            lines = shapely.to_geojson(shapely.multilinestrings(some)).partition("[")[2].removesuffix("]}")
            digest.update(lines.encode())
            yield separator + lines
            separator = ","
    identity = uuid.UUID(bytes=digest.digest()[:16], version=5)
    classification = {"name": name, "color": colour}
    properties = {"objectType": "annotation", "classification": classification, "isLocked": False}
    yield f']}}, "id": "{identity}", "properties": {json.dumps(properties, ensure_ascii=False)}}}'
