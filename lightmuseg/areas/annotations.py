"""Annotated polygons as pathologists' programs exchange them: ASAP's XML, GeoJSON of QuPath, JSON of the DSA."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree
import numpy as np
import shapely
from shapely import affinity

from lightmuseg.classes import palette_of
from lightmuseg.errors import InputError, first_line

from .geojson import MAX_BYTES, MAX_VERTICES, content_of, polygons_in, ring_of
from .region_of_interest import MAX_OVERLAPS, refuse_tangle

# endings of the files
POLYGONS = (".xml", ".geojson", ".json")
# ASAP's kinds of annotations without an area
_THIN = ("Dot", "PointSet", "Measurement")
# the group of what has none: ASAP's, and what HistomicsUI draws at first
_NO_GROUP = ("", "None", "default")


class Annotation(NamedTuple):
    """A polygon in level-0 pixels with the name of its class, "" for none."""

    class_name: str
    polygon: shapely.Polygon


def read_annotations(
    path: Path, name: str, others: Counter[str], most_overlaps: int = MAX_OVERLAPS
) -> list[Annotation]:
    """The polygons of an ASAP XML (.xml), or of a GeoJSON or a DSA's JSON (.geojson, .json), valid ones.

    Args:
        path: of the file, at most 50 MB.
        name: stands for it in messages.
        others: counts what has no area.
        most_overlaps: as ``most`` of :func:`.region_of_interest.refuse_tangle`.

    Raises:
        InputError: where it is too large, broken or unsafe, or its polygons have too many vertices or crossings.
    """
    drawn, vertices = [], 0
    read = _read_asap if path.suffix.lower() == ".xml" else _read_json
    for class_name, polygon in read(path, name, others):
        vertices += shapely.count_coordinates(polygon)
        if vertices > MAX_VERTICES:
            raise InputError(f"{name}: has more than {MAX_VERTICES} vertices; simplify the annotation.")
        drawn.append((class_name, polygon))
    refuse_tangle([polygon for _, polygon in drawn], name, most_overlaps)
    return [Annotation(class_name, part) for class_name, polygon in drawn for part in _valid(polygon, others)]


def _valid(polygon: shapely.Polygon, others: Counter[str]) -> list[shapely.Polygon]:
    # by structure, loops that overlap stay inside
    repaired = shapely.make_valid(polygon, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(repaired).tolist() if part.area > 0]
    if not parts:
        others["polygon without area"] += 1
    return parts


def _read_asap(path: Path, name: str, others: Counter[str]) -> Iterator[Annotation]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{name}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; simplify the annotation.")
    try:
        root = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f"{name}: is no safe XML ({first_line(error)}); export it again.") from error
    if root.tag != "ASAP_Annotations":
        raise InputError(f"{name}: is XML of {root.tag[:40]}, not ASAP_Annotations; export it again.")
    for element in root.iter("Annotation"):
        if element.get("Type") in _THIN:
            others[str(element.get("Type"))] += 1
            continue
        points = [(one.get("X"), one.get("Y")) for one in element.iter("Coordinate")]
        try:
            corners = np.array(points, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: holds a coordinate that is no number; export it again.") from error
        yield Annotation(
            _group(element.get("PartOfGroup"), element.get("Name")), shapely.Polygon(ring_of(corners, name))
        )


def _group(group: Any, name: Any) -> str:
    """The class of an object that may have a group and a name of its own."""
    found = name if group is None or group in _NO_GROUP else group
    return found if isinstance(found, str) else ""


def _read_json(path: Path, name: str, others: Counter[str]) -> Iterator[Annotation]:
    content = content_of(path, name)
    documents = content if isinstance(content, list) else [content]
    if not (documents and all(map(_is_dsa, documents))):
        yield from (Annotation(*one) for one in polygons_in(content, name, others))
        return
    for document in documents:
        elements = document.get("annotation", document)["elements"]
        for element in elements if isinstance(elements, list) else [None]:
            if not isinstance(element, dict):
                raise InputError(f"{name}: holds elements that are no objects; export it again.")
            yield from _of_dsa(element, name, others)


def _is_dsa(document: Any) -> bool:
    if not isinstance(document, dict):
        return False
    inner = document.get("annotation", document)
    return isinstance(inner, dict) and "elements" in inner


def _of_dsa(element: dict[str, Any], name: str, others: Counter[str]) -> Iterator[Annotation]:
    """The polygon of a DSA's element, where it has an area.

    References:
        https://girder.github.io/large_image/girder_annotation_config_options.html
    """
    label, kind = element.get("label"), element.get("type")
    class_name = _group(element.get("group"), label.get("value") if isinstance(label, dict) else None)
    if kind == "polyline" and element.get("closed"):
        holes = element.get("holes") or []
        rings = [ring_of(ring, name) for ring in (element.get("points"), *(holes if isinstance(holes, list) else [0]))]
        yield Annotation(class_name, shapely.Polygon(rings[0], rings[1:]))
    elif str(kind) in _SIDES:
        yield Annotation(class_name, _around_centre(element, name))
    else:
        others["open polyline" if kind == "polyline" else str(kind)[:40]] += 1


def _around_centre(element: dict[str, Any], name: str) -> shapely.Polygon:
    """A DSA's rectangle, ellipse or circle, turned as HistomicsTK's ``rotate_point_list`` turns rectangles."""
    kind = element["type"]
    try:
        x, y = (float(number) for number in element["center"][:2])
        half_width, half_height = (float(element.get(side, 0)) * share for side, share in _SIDES[kind])
        turn = float(element.get("rotation", 0))
    except (KeyError, TypeError, ValueError) as error:
        sides = " and ".join(dict(_SIDES[kind]))
        raise InputError(f"{name}: holds a {kind} without center, {sides}; export it again.") from error
    corners = ring_of([[x + i * half_width, y + j * half_height] for i, j in _CORNERS], name)
    if not math.isfinite(turn):
        raise InputError(f"{name}: holds a {kind} turned by {turn}; export it again.")
    shape = shapely.Polygon(corners)
    if kind != "rectangle":
        shape = affinity.scale(shapely.Point(x, y).buffer(1, quad_segs=32), half_width, half_height)
    return affinity.rotate(shape, turn, (x, y), use_radians=True)


_CORNERS = ((-1, -1), (1, -1), (1, 1), (-1, 1))
# the sides of what a DSA draws around a centre, and which share of them lies at each side of it
_SIDES = {
    "rectangle": (("width", 0.5), ("height", 0.5)),
    "ellipse": (("width", 0.5), ("height", 0.5)),
    "circle": (("radius", 1.0), ("radius", 1.0)),
}


def write_asap(path: Path, annotations: Iterable[Annotation], class_names: Sequence[str], title: str) -> None:
    """Write ASAP's XML; a polygon with holes, which ASAP has not, becomes several.

    References:
        https://computationalpathologygroup.github.io/ASAP
    """
    colours = {name: f"#{bytes(colour).hex()}" for name, colour in colours_of(class_names).items()}
    root = ElementTree.Element("ASAP_Annotations")
    inner = ElementTree.SubElement(root, "Annotations", Name=title)
    for name, polygon in annotations:
        for part in without_holes(polygon):
            attributes = {"Name": name, "Type": "Polygon", "PartOfGroup": name, "Color": colours[name]}
            element = ElementTree.SubElement(inner, "Annotation", attributes)
            coordinates = ElementTree.SubElement(element, "Coordinates")
            for order, (x, y) in enumerate(shapely.get_coordinates(part.exterior)[:-1].tolist()):
                ElementTree.SubElement(coordinates, "Coordinate", Order=str(order), X=f"{x:.10g}", Y=f"{y:.10g}")
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for name, colour in colours.items():
        group = ElementTree.SubElement(groups, "Group", Name=name, PartOfGroup="None", Color=colour)
        ElementTree.SubElement(group, "Attributes")
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_dsa(path: Path, annotations: Iterable[Annotation], class_names: Sequence[str], title: str) -> None:
    """Write an annotation document of the Digital Slide Archive.

    References:
        https://girder.github.io/large_image/girder_annotation_config_options.html
    """
    colours = colours_of(class_names)
    elements = []
    for name, polygon in annotations:
        points, *holes = (
            [[x, y, 0] for x, y in shapely.get_coordinates(ring)[:-1].tolist()]
            for ring in (polygon.exterior, *polygon.interiors)
        )
        element = {
            "type": "polyline", "closed": True, "points": points, "group": name, "lineWidth": 2,
            "label": {"value": name}, "lineColor": f"rgb({','.join(map(str, colours[name]))})",
        }  # fmt: skip
        elements.append(element | ({"holes": holes} if holes else {}))
    path.write_text(json.dumps({"name": title, "elements": elements}), encoding="utf-8")


def to_geojson(annotations: Iterable[Annotation], class_names: Sequence[str]) -> dict[str, Any]:
    """A FeatureCollection as QuPath imports it."""
    colours = colours_of(class_names)
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(polygon),
            "properties": {"objectType": "annotation", "classification": {"name": name, "color": list(colours[name])}},
        }
        for name, polygon in annotations
    ]
    return {"type": "FeatureCollection", "features": features}


def colours_of(class_names: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """RGB of each class."""
    return dict(zip(class_names, palette_of(class_names)[1:]))


def without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """Polygons without holes that together cover the same points: cut upright through a hole, and so on."""
    waiting, done = [polygon], []
    while waiting:
        part = waiting.pop()
        if not part.interiors:
            done.append(part)
            continue
        left, lower, right, upper = part.bounds
        hole_left, _, hole_right, _ = part.interiors[len(part.interiors) // 2].bounds
        # at a half pixel, where outlines of pixels have no points
        middle = math.floor((hole_left + hole_right) / 2) + 0.5
        middle = middle if hole_left < middle < hole_right else (hole_left + hole_right) / 2
        for half in (shapely.box(left, lower, middle, upper), shapely.box(middle, lower, right, upper)):
            pieces = shapely.get_parts(shapely.intersection(part, half)).tolist()
            waiting += [piece for piece in pieces if piece.geom_type == "Polygon" and piece.area > 0]
    return done
