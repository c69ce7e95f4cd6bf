"""The part of a slide that a user asks for: a rectangle, or polygons of a GeoJSON as QuPath exports it.

Coordinates are level-0 pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely

from lightmuseg.errors import InputError

from .area import RegionOfInterest
from .geojson import polygons_of, read_geojson, ring_of

logger = logging.getLogger(__name__)

# Boxes of edges that overlap, per edge and altogether; neighbours' always do. Above both, uniting the polygons would
# take time and memory without end.
OVERLAPS_AN_EDGE, MAX_OVERLAPS = 10, 500_000
EDGES_AT_ONCE = 64
EXAMPLE = "--region 1000,2000,4096,4096"


def read_region(text: str, width0: int, height0: int) -> RegionOfInterest:
    """What ``--region`` says.

    Args:
        text: "x,y,w,h": left, upper, width and height in level-0 pixels; or the path of a GeoJSON whose polygons are
            in level-0 pixels.
        width0, height0: of the slide; what reaches over its edge is cut off with a warning.

    Raises:
        InputError: where it is neither, has no area, or none on the slide.
    """
    path = Path(text)
    name = f"--region {text if len(text) <= 200 else text[:200] + '...'}"
    shape = _of_geojson(path, name) if _is_file(path) else _rectangle(text, name)
    return RegionOfInterest(_on_slide(shape, name, width0, height0))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # too long for a name, or a character that names cannot hold
        return False


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


def _of_geojson(path: Path, name: str) -> shapely.Geometry:
    polygons = list(polygons_of(read_geojson(path, name), name))
    if not polygons:
        raise InputError(f"{name}: holds no polygon; draw one, or leave --region out.")
    refuse_tangle(polygons, name)
    broken = sum(not polygon.is_valid for polygon in polygons)
    if broken:
        logger.warning("%s: %d of its polygons cross themselves and were repaired; check their outlines.", name, broken)
    # by structure, loops that overlap stay inside; by lines it takes minutes where there are many
    return shapely.union_all(shapely.make_valid(polygons, method="structure", keep_collapsed=False))


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


def _on_slide(shape: shapely.Geometry, name: str, width0: int, height0: int) -> shapely.Polygon | shapely.MultiPolygon:
    """The part on the slide, without the lines and points that cutting and repairing leave."""
    if not shape.area > 0:
        raise InputError(f"{name}: has no area; draw a larger one.")
    inside = shapely.intersection(shape, shapely.box(0, 0, width0, height0))
    inside = shapely.union_all([part for part in shapely.get_parts(inside) if part.geom_type.endswith("Polygon")])
    if inside.is_empty:
        left, upper, right, lower = shape.bounds
        raise InputError(
            f"{name}: x {left:g} to {right:g}, y {upper:g} to {lower:g} lies outside the slide, which is {width0} x "
            f"{height0} level-0 pixels; give a region on it."
        )
    lost = 1 - inside.area / shape.area
    if lost > 1e-9:
        logger.warning("%s: %.2g%% of it lies outside the slide and is left out.", name, 100 * lost)
    return inside


def check_region(text: str) -> None:
    """Refuse a region of which no slide is needed to see that it is none; see :func:`read_region`.

    Raises:
        InputError: where it is no rectangle, nor GeoJSON that can be read.
    """
    name = f"--region {text[:200]}"
    if _is_file(Path(text)):
        read_geojson(Path(text), name)
    else:
        _rectangle(text, name)
