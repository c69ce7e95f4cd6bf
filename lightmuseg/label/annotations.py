"""Annotated polygons as pathologists' programs exchange them: ASAP's XML, GeoJSON of QuPath, JSON of the DSA."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml
import defusedxml.ElementTree
import numpy as np
import shapely

from lightmuseg.areas.geojson import MAX_BYTES, MAX_VERTICES, polygons_of, read_geojson, ring_of
from lightmuseg.areas.region_of_interest import refuse_tangle
from lightmuseg.classes import palette_of
from lightmuseg.errors import InputError, first_line

# Pairs of edges whose boxes overlap, beyond those of neighbours: what takes a second.
MAX_OVERLAPS = 50_000


@dataclass(frozen=True)
class Annotation:
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
    return [Annotation(kind, part) for kind, polygon in drawn for part in _valid(polygon, name)]


def _valid(polygon: shapely.Polygon, name: str) -> list[shapely.Polygon]:
    mended = shapely.make_valid(polygon, method="structure", keep_collapsed=False)
    parts = [part for part in shapely.get_parts(mended).tolist() if part.area > 0]
    if not parts:
        raise InputError(f"{name}: holds a polygon without area; delete it.")
    return parts


def _read_asap(path: Path, name: str) -> Iterator[tuple[str, shapely.Polygon]]:
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
        yield element.get("PartOfGroup") or element.get("Name") or "", shapely.Polygon(ring_of(corners, name))


def _read_geojson(path: Path, name: str) -> Iterator[tuple[str, shapely.Polygon]]:
    content = read_geojson(path, name)
    features = content.get("features") if isinstance(content, dict) else content
    for feature in features if isinstance(features, list) else [content]:
        properties = feature.get("properties") if isinstance(feature, dict) else None
        kind = properties.get("classification") if isinstance(properties, dict) else None
        kind = kind.get("name") if isinstance(kind, dict) else kind
        if not isinstance(kind, str):
            raise InputError(f"{name}: holds an object without a class; set its class, or delete it.")
        for polygon in polygons_of(feature.get("geometry"), name):
            yield kind, polygon


def write_asap(path: Path, annotations: Iterable[Annotation], class_names: Sequence[str], title: str) -> int:
    """Write ASAP's XML and return the number of polygons; one with holes, which ASAP has not, becomes several.

    References:
        https://computationalpathologygroup.github.io/ASAP
    """
    colours = _hex_colours(class_names)
    root = ElementTree.Element("ASAP_Annotations")
    inner = ElementTree.SubElement(root, "Annotations", Name=title)
    count = 0
    for annotation in annotations:
        colour = colours[annotation.class_name]
        for part in without_holes(annotation.polygon):
            element = ElementTree.SubElement(
                inner, "Annotation", Name=annotation.class_name, Type="Polygon", PartOfGroup=annotation.class_name,
                Color=colour,
            )  # fmt: skip
            coordinates = ElementTree.SubElement(element, "Coordinates")
            for order, (x, y) in enumerate(shapely.get_coordinates(part.exterior)[:-1].tolist()):
                ElementTree.SubElement(coordinates, "Coordinate", Order=str(order), X=f"{x:.10g}", Y=f"{y:.10g}")
            count += 1
    groups = ElementTree.SubElement(root, "AnnotationGroups")
    for class_name, colour in colours.items():
        group = ElementTree.SubElement(groups, "Group", Name=class_name, PartOfGroup="None", Color=colour)
        ElementTree.SubElement(group, "Attributes")
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return count


def write_dsa(path: Path, annotations: Iterable[Annotation], class_names: Sequence[str], title: str) -> int:
    """Write an annotation document of the Digital Slide Archive, and return the number of polygons.

    References:
        https://girder.github.io/large_image/girder_annotation_config_options.html
    """
    colours = dict(zip(class_names, palette_of(class_names)[1:]))
    elements = []
    for annotation in annotations:
        red, green, blue = colours[annotation.class_name]
        rings = [
            [[x, y, 0] for x, y in shapely.get_coordinates(ring)[:-1].tolist()]
            for ring in (annotation.polygon.exterior, *annotation.polygon.interiors)
        ]
        element = {
            "type": "polyline", "closed": True, "points": rings[0], "group": annotation.class_name, "lineWidth": 2,
            "label": {"value": annotation.class_name}, "lineColor": f"rgb({red},{green},{blue})",
        }  # fmt: skip
        elements.append(element | ({"holes": rings[1:]} if len(rings) > 1 else {}))
    path.write_text(json.dumps({"name": title, "elements": elements}), encoding="utf-8")
    return len(elements)


def to_geojson(annotations: Iterable[Annotation], class_names: Sequence[str]) -> dict[str, Any]:
    """A FeatureCollection as QuPath imports it."""
    colours = dict(zip(class_names, palette_of(class_names)[1:]))
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(annotation.polygon),
            "properties": {
                "objectType": "annotation",
                "classification": {"name": annotation.class_name, "color": list(colours[annotation.class_name])},
            },
        }
        for annotation in annotations
    ]
    return {"type": "FeatureCollection", "features": features}


def _hex_colours(class_names: Sequence[str]) -> dict[str, str]:
    return {name: "#{:02x}{:02x}{:02x}".format(*rgb) for name, rgb in zip(class_names, palette_of(class_names)[1:])}


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
