"""Polygons of a GeoJSON file that somebody else wrote."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from lightmuseg.errors import InputError, first_line
from lightmuseg.text_files import text_of

MAX_BYTES = 50_000_000
MAX_VERTICES = 500_000
# Level-0 pixels from the slide's left upper corner; the largest slides have some hundred thousand.
MAX_COORDINATE = 1e7
# first bytes of a zip
_ZIP = b"PK"
# what has no area
_THIN = ("Point", "MultiPoint", "LineString", "MultiLineString")
_MEMBERS = {"FeatureCollection": "features", "Feature": "geometry", "GeometryCollection": "geometries"}


def drawn_in(path: Path, name: str, others: Counter[str]) -> Iterator[tuple[str, shapely.Polygon]]:
    """The polygons of a GeoJSON file, valid or not, with the names of their classes, "" where they have none.

    Args:
        path: of the file, at most 50 MB in UTF-8, UTF-16, UTF-32, cp1252 or Latin-1; or of a zip with only that, as
            QuPath compresses its exports.
        name: stands for it in messages.
        others: counts what has no area: points, lines, empty polygons, objects without a geometry.

    Raises:
        InputError: where the file is larger or no GeoJSON, has more than 500,000 vertices, or :func:`ring_of` refuses
            it.
    """
    yield from polygons_in(content_of(path, name), name, others)


def polygons_in(content: Any, name: str, others: Counter[str]) -> Iterator[tuple[str, shapely.Polygon]]:
    """As :func:`drawn_in`, of what the file holds."""
    vertices = 0
    waiting = [(content, "")]
    while waiting:
        item, class_name = waiting.pop()
        if isinstance(item, list):
            waiting += [(one, class_name) for one in item[::-1]]
            continue
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "Feature" and item.get("geometry") is None:
            others["object without geometry"] += 1
        elif isinstance(kind, str) and kind in _MEMBERS:
            waiting.append((item.get(_MEMBERS[kind]), _class_of(item) or class_name))
        elif kind in ("Polygon", "MultiPolygon"):
            parts = [item.get("coordinates")] if kind == "Polygon" else item.get("coordinates")
            if parts in ([], [[]], [[[]]]):
                others[f"empty {kind}"] += 1
                continue
            for rings in parts if isinstance(parts, list) else [None]:
                points = [ring_of(ring, name) for ring in (rings if isinstance(rings, list) and rings else [[]])]
                vertices += sum(map(len, points))
                if vertices > MAX_VERTICES:
                    raise InputError(f"{name}: has more than {MAX_VERTICES} vertices; simplify the annotation.")
                yield class_name, shapely.Polygon(points[0], points[1:])
        elif kind in _THIN:
            others[kind] += 1
        else:
            what = f"a {str(kind)[:40]}" if kind else "something that is no geometry"
            raise InputError(f"{name}: holds {what}; only Polygon and MultiPolygon are read, delete the rest.")


def content_of(path: Path, name: str) -> Any:
    """What a JSON file, or a zip with only that, holds; see :func:`drawn_in`.

    Raises:
        InputError: where it is larger than 50 MB, or no JSON.
    """
    _refuse_size(path.stat().st_size, name)
    content = path.read_bytes()
    if content.startswith(_ZIP):
        content = _unzipped(path, name)
    try:
        return json.loads(text_of(content))
    except RecursionError as error:
        raise InputError(f"{name}: is nested too deeply for a GeoJSON; export it again.") from error
    except ValueError as error:
        raise InputError(f"{name}: is no GeoJSON ({first_line(error)}); export it again.") from error


def _refuse_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise InputError(f"{name}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; simplify the annotation.")


def _unzipped(path: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            # beside it macOS packs hidden files
            files = [one for one in archive.infolist() if not (one.is_dir() or _is_hidden(one.filename))]
            if len(files) != 1:
                raise InputError(f"{name}: holds {len(files)} files, not one GeoJSON; give that alone.")
            with archive.open(files[0]) as file:
                # not what the archive says of its size, which may be anything
                content = file.read(MAX_BYTES + 1)
    except InputError:
        raise
    except Exception as error:  # each compression has errors of its own
        raise InputError(f"{name}: cannot be unpacked ({first_line(error)}); export it again.") from error
    _refuse_size(len(content), name)
    return content


def _is_hidden(entry: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in entry.split("/"))


def _class_of(feature: dict[str, Any]) -> str:
    """The name of the class that QuPath gave an object, of one derived from others as QuPath writes it; "" for none.

    >>> _class_of({"properties": {"classification": {"name": "Tumor"}}})
    'Tumor'
    >>> _class_of({"properties": {"classification": {"names": ["Ignore*", "Fold"]}}})
    'Ignore*: Fold'
    """
    properties = feature.get("properties")
    kind = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(kind, dict):
        names = kind.get("names")
        names = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        kind = kind.get("name") or ": ".join(names)
    return kind if isinstance(kind, str) else ""


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
