"""Annotated polygons as pathologists' programs exchange them: ASAP's XML, GeoJSON of QuPath, JSON of the DSA."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree
import numpy as np
import shapely

from lightmuseg.areas.geojson import MAX_BYTES, MAX_VERTICES, polygons_of, ring_of
from lightmuseg.areas.region_of_interest import refuse_tangle
from lightmuseg.classes import palette_of
from lightmuseg.errors import InputError, first_line

# Pairs of edges whose boxes overlap, beyond those of neighbours: what takes a second.
MAX_OVERLAPS = 50_000


class Annotation(NamedTuple):
    """A polygon in level-0 pixels with the name of its class."""

    class_name: str
    polygon: shapely.Polygon


def read_annotations(path: Path, name: str) -> list[Annotation]:
    """The polygons of an ASAP XML (.xml) or a GeoJSON (.geojson, .json); ``name`` stands for the file in messages.

    Raises:
        InputError: where it is too large, broken, unsafe, or holds anything but polygons with classes.
    """
    read = _read_asap if path.suffix.lower() == ".xml" else _read_geojson
    drawn = list(read(path, name))
    refuse_tangle([polygon for _, polygon in drawn], name, MAX_OVERLAPS)
    return [Annotation(class_name, part) for class_name, polygon in drawn for part in _valid(polygon, name)]


def _valid(polygon: shapely.Polygon, name: str) -> list[shapely.Polygon]:
    repaired = shapely.make_valid(polygon, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(repaired).tolist() if part.area > 0]
    if not parts:
        raise InputError(f"{name}: holds a polygon without area; delete it.")
    return parts


def _read_asap(path: Path, name: str) -> Iterator[Annotation]:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{name}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; simplify the annotation.")
    try:
        root = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except (ElementTree.ParseError, defusedxml.DefusedXmlException, ValueError, LookupError) as error:
        raise InputError(f"{name}: is no safe XML ({first_line(error)}); export it again.") from error
    if root.tag != "ASAP_Annotations":
        raise InputError(f"{name}: is XML of {root.tag[:40]}, not ASAP_Annotations; export it again.")
    vertices = 0
    for element in root.iter("Annotation"):
        points = [(one.get("X"), one.get("Y")) for one in element.iter("Coordinate")]
        vertices += len(points)
        if vertices > MAX_VERTICES:
            raise InputError(f"{name}: has more than {MAX_VERTICES} vertices; simplify the annotation.")
        try:
            corners = np.array(points, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name}: holds a coordinate that is no number; export it again.") from error
        class_name = element.get("PartOfGroup") or element.get("Name") or ""
        yield Annotation(class_name, shapely.Polygon(ring_of(corners, name)))


def _read_geojson(path: Path, name: str) -> Iterator[Annotation]:
    for class_name, polygon in polygons_of(path, name):
        if not class_name:
            raise InputError(f"{name}: holds an object without a class; set its class, or delete it.")
        yield Annotation(class_name, polygon)


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
