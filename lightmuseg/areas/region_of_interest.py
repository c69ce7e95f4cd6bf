"""The part of a slide that a user asks for: a rectangle, or polygons of a GeoJSON as QuPath exports it.

Coordinates are level-0 pixels.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from lightmuseg.errors import InputError
from lightmuseg.files import is_file

from .area import RegionOfInterest
from .geojson import MAX_COORDINATE, drawn_in, ring_of

logger = logging.getLogger(__name__)

# Boxes of edges that overlap, per edge and altogether; neighbours' always do. Above both, uniting the polygons would
# take time and memory without end.
OVERLAPS_AN_EDGE, MAX_OVERLAPS = 10, 500_000
EDGES_AT_ONCE = 64
# QuPath's classes of areas in which others are looked at, and of those that are passed over
AREA, HOLE = "Region*", "Ignore*"
EXAMPLE = "--region 1000,2000,4096,4096"


def read_region(text: str, width0: int, height0: int) -> RegionOfInterest:
    """What ``--region`` says; its ``warnings`` say what of that was left out or changed, and are logged.

    Args:
        text: "x,y,w,h": left, upper, width and height in level-0 pixels; or the path of a GeoJSON whose polygons are
            in level-0 pixels. Those of QuPath's class ``Ignore*`` are holes in the others, or in the whole slide where
            there are no others; what has no area is left out.
        width0, height0: of the slide; what reaches over its edge is cut off.

    Raises:
        InputError: where it is neither, has no area, or none on the slide.
    """
    name, warnings = _name(text), []
    whole = shapely.box(0, 0, width0, height0)
    shape = _shape(text, name, whole, warnings)
    # without the lines and points that cutting and repairing leave
    parts = shapely.get_parts(shapely.intersection(shape, whole))
    inside = shapely.union_all([part for part in parts if part.geom_type.endswith("Polygon")])
    if inside.is_empty:
        left, upper, right, lower = shape.bounds
        raise InputError(
            f"{name}: x {left:g} to {right:g}, y {upper:g} to {lower:g} lies outside the slide, which is {width0} x "
            f"{height0} level-0 pixels; give a region on it."
        )
    lost = 1 - inside.area / shape.area
    if lost > 1e-9:
        warnings.append(f"{100 * lost:.2g}% of it lies outside the slide and is left out.")
    for warning in warnings:
        logger.warning("%s: %s", name, warning)
    return RegionOfInterest(inside, tuple(f"region: {warning}" for warning in warnings))


def check_region(text: str) -> None:
    """Refuse a region of which no slide is needed to see that it is none; see :func:`read_region`.

    Raises:
        InputError: where it is neither a rectangle nor polygons that can be read and have an area.
    """
    _shape(text, _name(text), shapely.box(0, 0, MAX_COORDINATE, MAX_COORDINATE), [])


def _name(text: str) -> str:
    return f"--region {text if len(text) <= 200 else text[:200] + '...'}"


def _shape(text: str, name: str, slide: shapely.Polygon, warnings: list[str]) -> shapely.Geometry:
    """What a region draws, on a slide or beside it; warnings are added."""
    shape = _of_geojson(Path(text), name, slide, warnings) if is_file(text) else _rectangle(text, name)
    if not shape.area > 0:
        raise InputError(f"{name}: has no area; draw a larger one.")
    return shape


def _rectangle(text: str, name: str) -> shapely.Polygon:
    try:
        x0, y0, width0, height0 = (float(number) for number in text.split(","))
    except ValueError as error:
        raise InputError(
            f"{name}: is neither a GeoJSON file that is there nor x,y,width,height in level-0 pixels; give {EXAMPLE}."
        ) from error
    if min(width0, height0) <= 0:
        raise InputError(f"{name}: width and height must be above 0; give {EXAMPLE}.")
    corners = ring_of([[x0, y0], [x0 + width0, y0], [x0 + width0, y0 + height0]], name)
    return shapely.box(*corners[0], *corners[2])


def _of_geojson(path: Path, name: str, slide: shapely.Polygon, warnings: list[str]) -> shapely.Geometry:
    others: Counter[str] = Counter()
    drawn = list(drawn_in(path, name, others))
    polygons = [polygon for _, polygon in drawn]
    if not polygons:
        found = f" but {counted(others)}" if others else ""
        raise InputError(f"{name}: holds no polygon{found}; draw one, or leave --region out.")
    refuse_tangle(polygons, name)
    # by structure, loops that overlap stay inside; by lines it takes minutes where there are many
    shapes = shapely.make_valid(polygons, method="structure", keep_collapsed=False)
    thin = shapely.area(shapes) == 0
    broken = np.count_nonzero(~shapely.is_valid(polygons) & ~thin)
    if broken:
        warnings.append(f"{broken} of its polygons cross themselves and were repaired; check their outlines.")
    others["polygon without area"] += np.count_nonzero(thin)
    if others.total():
        warnings.append(f"what has no area was left out of it: {counted(others)}.")
    holes, areas, starred = [], [], set()
    for (class_names, _), shape in zip(drawn, shapes):
        # of a class derived from others the first
        class_name = class_names.partition(":")[0].strip()
        if class_name.replace(" ", "").casefold() == HOLE.casefold():
            holes.append(shape)
            continue
        areas.append(shape)
        if class_name.endswith("*") and class_name != AREA:
            starred.add(class_name)
    if starred:
        names = ", ".join(sorted(starred))
        warnings.append(f"its {names} are taken for areas; only those of the class {HOLE} are left out.")
    if holes and not areas:
        warnings.append(f"it holds {HOLE} only, so the rest of the slide was taken.")
        areas = [slide]
    return shapely.difference(shapely.union_all(areas), shapely.union_all(holes)) if holes else shapely.union_all(areas)


def counted(others: Counter[str]) -> str:
    """What was left out, for a message.

    >>> counted(Counter({"Point": 2, "polygon without area": 0, "LineString": 1}))
    '2 x Point, 1 x LineString'
    """
    return ", ".join(f"{count} x {kind}" for kind, count in others.most_common() if count)


def refuse_tangle(polygons: Sequence[shapely.Polygon], name: str, most: int = MAX_OVERLAPS) -> None:
    """Refuse polygons whose edges cross each other so often that to repair and unite them would not end.

    Args:
        polygons: valid or not.
        name: of their file, for messages.
        most: pairs of edges whose boxes overlap; or 10 an edge, where that is more.

    Raises:
        InputError: where there are more.
    """
    if not polygons:
        return
    rings = [np.asarray(ring.coords) for polygon in polygons for ring in (polygon.exterior, *polygon.interiors)]
    edges = shapely.linestrings(np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings]))
    tree = shapely.STRtree(edges)
    limit = max(most, OVERLAPS_AN_EDGE * len(edges))
    overlaps = 0
    for start in range(0, len(edges), EDGES_AT_ONCE):
        overlaps += tree.query(edges[start : start + EDGES_AT_ONCE]).shape[1]
        if overlaps > limit:
            raise InputError(f"{name}: its outlines cross each other too often; draw plain ones.")
