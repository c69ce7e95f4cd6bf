"""Polygons of a GeoJSON file that somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from lightmuseg.errors import InputError, first_line

MAX_BYTES = 50_000_000
MAX_VERTICES = 500_000
# Level-0 pixels from the slide's left upper corner; the largest slides have some hundred thousand.
MAX_COORDINATE = 1e7


def read_geojson(path: Path, name: str) -> Any:
    """What a GeoJSON file of at most 50 MB holds; ``name`` stands for it in messages.

    Raises:
        InputError: where it is larger, or no JSON.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{name}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; simplify the annotation.")
    try:
        return json.loads(path.read_bytes())
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply for a GeoJSON; export it again.") from error
    except ValueError as error:
        raise InputError(f"{name}: is no GeoJSON ({first_line(error)}); export it again.") from error


def polygons_of(content: Any, name: str) -> Iterator[shapely.Polygon]:
    """The polygons of a GeoJSON object, in whatever it wraps them, valid or not.

    Raises:
        InputError: where it holds another geometry, more than 500,000 vertices, or what :func:`ring_of` refuses.
    """
    vertices = 0
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item[::-1]
            continue
        kind = item.get("type") if isinstance(item, dict) else None
        members = {"FeatureCollection": "features", "Feature": "geometry", "GeometryCollection": "geometries"}
        if isinstance(kind, str) and kind in members:
            waiting.append(item.get(members[kind]))
        elif kind in ("Polygon", "MultiPolygon"):
            parts = [item.get("coordinates")] if kind == "Polygon" else item.get("coordinates")
            for rings in parts if isinstance(parts, list) else [None]:
                points = [ring_of(ring, name) for ring in (rings if isinstance(rings, list) and rings else [[]])]
                vertices += sum(map(len, points))
                if vertices > MAX_VERTICES:
                    raise InputError(f"{name}: has more than {MAX_VERTICES} vertices; simplify the annotation.")
                yield shapely.Polygon(points[0], points[1:])
        else:
            what = f"a {str(kind)[:40]}" if kind else "something that is no geometry"
            raise InputError(f"{name}: holds {what}; only Polygon and MultiPolygon are read, delete the rest.")


def ring_of(points: Any, name: str) -> np.ndarray:
    """The corners of an outline as float64 [n, 2], (x, y) in level-0 pixels; a third coordinate is left out.

    Args:
        points: a list of three or more [x, y] or [x, y, z].
        name: stands for its file in messages.

    Raises:
        InputError: where it is something else, or holds a coordinate that is not finite, or more than 10,000,000 away.
    """
    try:
        ring = np.asarray(points)
    except ValueError:
        ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[0] < 3 or ring.shape[1] not in (2, 3) or ring.dtype.kind not in "iuf":
        raise InputError(f"{name}: holds a polygon that is no list of three or more points [x, y]; export it again.")
    ring = ring[:, :2].astype(np.float64)
    # not >, which NaN is not either
    beyond = ring[~(np.abs(ring) <= MAX_COORDINATE)]
    if beyond.size:
        raise InputError(
            f"{name}: holds the coordinate {beyond[0]:g}, which is not finite or beyond {MAX_COORDINATE:.0f} level-0 "
            "pixels; correct it."
        )
    return ring
