"""Annotations written and read again, in each format."""

import json
import math
import zipfile
from collections import Counter

import numpy as np
import pytest
import shapely
from shapely.geometry import box, mapping

from lightmuseg.areas.annotations import Annotation, read_annotations, to_geojson, without_holes, write_asap, write_dsa
from lightmuseg.errors import InputError

CLASSES = ["tumor", "stroma"]
RING = box(100, 100, 400, 400).difference(box(150, 150, 200, 380)).difference(box(250, 150, 380, 200))


def same(first, second):
    return shapely.symmetric_difference(first, second).area < 1e-6


def holes_by_chance(seed):
    """A polygon with many holes, as the outline of a noisy map."""
    shapes = [box(x, y, x + 7, y + 5) for x, y in np.random.default_rng(seed).integers(5, 190, (40, 2))]
    shape = box(0, 0, 200, 200).difference(shapely.union_all(shapes))
    return max(shapely.get_parts(shape).tolist(), key=lambda part: part.area)


@pytest.mark.parametrize("polygon", [RING, *map(holes_by_chance, range(3))])
def test_polygon_with_holes_becomes_polygons_without_that_cover_the_same(polygon):
    parts = without_holes(polygon)
    assert all(part.is_valid and not part.interiors for part in parts)
    assert same(shapely.union_all(parts), polygon)
    assert sum(part.area for part in parts) == pytest.approx(polygon.area)


@pytest.mark.parametrize("kind", ["xml", "geojson", "json", "zip"])
def test_what_is_written_is_read_again(kind, tmp_path):
    annotations = [Annotation("tumor", RING), Annotation("stroma", box(0, 0, 50.25, 60))]
    path = tmp_path / f"a.{kind}"
    if kind == "xml":
        write_asap(path, annotations, CLASSES, 'a & "b" <c>')
    elif kind == "json":
        write_dsa(path, annotations, CLASSES, "a")
    elif kind == "geojson":
        path.write_text(json.dumps(to_geojson(annotations, CLASSES)))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.geojson", json.dumps(to_geojson(annotations, CLASSES)))
    others = Counter()
    read = read_annotations(path, "a", others)
    assert not others
    for annotation in annotations:
        parts = [one.polygon for one in read if one.class_name == annotation.class_name]
        assert same(shapely.union_all(parts), annotation.polygon)


def test_dsa_has_holes_and_colours(tmp_path):
    write_dsa(tmp_path / "a.json", [Annotation("tumor", RING)], CLASSES, "a")
    (element,) = json.loads((tmp_path / "a.json").read_text())["elements"]
    assert same(shapely.Polygon(element["points"], element["holes"]), RING)
    assert element["lineColor"] == "rgb(220,38,38)"


def read(path, content):
    """The annotations in a file, and what has no area."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    others = Counter()
    return read_annotations(path, path.name, others), others


SQUARE = [[10, 10, 0], [50, 10, 0], [50, 40, 0], [10, 40, 0]]
POLYLINE = {"type": "polyline", "closed": True, "points": SQUARE}


@pytest.mark.parametrize(
    ("element", "name"),
    [({"group": "tumor", "label": {"value": "mine"}}, "tumor"), ({"label": {"value": "mine"}}, "mine"),
     ({"group": "default", "label": {"value": "mine"}}, "mine"), ({}, ""), ({"group": 3, "label": "x"}, "")],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [lambda one: {"elements": [one]}, lambda one: [{"annotation": {"elements": [one]}}]])
def test_class_of_a_dsas_element_is_its_group_or_label(element, name, wrap, tmp_path):
    ((found, polygon),), others = read(tmp_path / "a.json", wrap(POLYLINE | element))
    assert (found, polygon.bounds, others) == (name, (10, 10, 50, 40), {})


def test_dsas_rectangle_is_turned_around_its_centre(tmp_path):
    element = {"type": "rectangle", "center": [100, 50, 0], "width": 40, "height": 20, "rotation": math.radians(30)}
    ((_, polygon),), _ = read(tmp_path / "a.json", {"elements": [element]})
    # as HistomicsTK turns a point: x cos - y sin, x sin + y cos, with y down
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    corners = [
        (100 + x * cos - y * sin, 50 + x * sin + y * cos) for x, y in ((-20, -10), (20, -10), (20, 10), (-20, 10))
    ]
    assert same(polygon, shapely.Polygon(corners))


def test_dsas_ellipse_and_circle_are_round(tmp_path):
    ellipse = {"type": "ellipse", "center": [100, 50, 0], "width": 40, "height": 20, "rotation": math.pi / 2}
    circle = {"type": "circle", "center": [30, 40, 0], "radius": 8, "group": "tumor"}
    ((_, first), (name, second)), others = read(tmp_path / "a.json", {"elements": [ellipse, circle]})
    assert (name, others) == ("tumor", {})
    assert first.bounds == pytest.approx((90, 30, 110, 70))
    assert second.bounds == pytest.approx((22, 32, 38, 48))
    assert (first.area, second.area) == pytest.approx((math.pi * 20 * 10, math.pi * 64), rel=1e-3)


def test_class_derived_from_others_has_the_name_that_qupath_shows(tmp_path):
    content = {"type": "Feature", "geometry": mapping(box(0, 0, 9, 9))}
    for kind in ({"name": "Tumor: Positive"}, {"names": ["Tumor", "Positive"]}):
        ((name, _),), _ = read(tmp_path / "a.geojson", content | {"properties": {"classification": kind}})
        assert name == "Tumor: Positive"


def test_what_has_no_area_is_counted(tmp_path):
    elements = [{"type": "point", "center": [1, 2, 0]}, POLYLINE | {"closed": False}, {"type": []}, POLYLINE]
    annotations, others = read(tmp_path / "a.json", {"elements": elements})
    assert (len(annotations), others) == (1, {"point": 1, "open polyline": 1, "[]": 1})
    dot = '<Annotation Type="Dot"><Coordinates><Coordinate X="1" Y="2"/></Coordinates></Annotation>'
    annotations, others = read(
        tmp_path / "a.xml", f"<ASAP_Annotations><Annotations>{dot}</Annotations></ASAP_Annotations>"
    )
    assert (annotations, others) == ([], {"Dot": 1})
    line = {"type": "Polygon", "coordinates": [[[0, 0], [9, 9], [0, 0]]]}
    annotations, others = read(tmp_path / "a.geojson", line)
    assert (annotations, others) == ([], {"polygon without area": 1})


def test_polygon_that_crosses_itself_becomes_valid_ones(tmp_path):
    bow_tie = shapely.Polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    annotations, _ = read(tmp_path / "a.geojson", mapping(bow_tie))
    assert all(polygon.is_valid for _, polygon in annotations)
    assert sum(polygon.area for _, polygon in annotations) == pytest.approx(800)


def asap(group, name, points):
    coordinates = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
    return (
        f'<ASAP_Annotations><Annotations><Annotation Name="{name}" Type="Polygon" PartOfGroup="{group}">'
        f"<Coordinates>{coordinates}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
    )


@pytest.mark.parametrize(("group", "name", "expected"), [("Tumor", "_0", "Tumor"), ("None", "stroma", "stroma")])
def test_class_of_an_asap_annotation_is_its_group_or_name(group, name, expected, tmp_path):
    ((found, polygon),), _ = read(tmp_path / "a.xml", asap(group, name, [(0, 0), (5, 0), (5, 4)]))
    assert (found, polygon.area) == (expected, 10)


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><ASAP_Annotations>&b;</ASAP_Annotations>'


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("a.xml", BOMB, "no safe XML"),
        ("a.xml", '<!DOCTYPE x SYSTEM "file:///etc/passwd"><ASAP_Annotations/>', "no safe XML"),
        ("a.xml", "<svg/>", "not ASAP_Annotations"),
        ("a.xml", "<ASAP_", "no safe XML"),
        ("a.xml", asap("Tumor", "", [(0, 0), ("x", 1), (2, 2)]), "no number"),
        ("a.xml", asap("Tumor", "", [(0, 0), ("inf", 1), (2, 2)]), "not finite"),
        ("a.xml", asap("Tumor", "", [(0, 0), (1, 1)]), "three or more points"),
        ("a.json", {"elements": 3}, "no objects"),
        ("a.json", {"elements": [3]}, "no objects"),
        ("a.json", {"elements": [{"type": "polyline", "closed": True}]}, "three or more points"),
        ("a.json", {"elements": [POLYLINE | {"holes": 3}]}, "three or more points"),
        ("a.json", {"elements": [{"type": "rectangle", "center": 3}]}, "rectangle without"),
        ("a.json", {"elements": [{"type": "circle", "center": [1, 2], "radius": []}]}, "circle without"),
        ("a.json", {"elements": [{"type": "circle", "center": [1, 2], "radius": 1e999}]}, "not finite"),
        ("a.json", {"elements": [{"type": "rectangle", "center": [1, 2], "width": 1e9, "height": 4}]}, "beyond"),
        ("a.json", {"elements": [{"type": "rectangle", "center": [1, 2], "width": 4, "height": 4, "rotation": 1e999}]},
         "turned by inf"),
        ("a.json", {"annotation": 3}, "no geometry"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.geojson", "{}", "no geometry"),
        ("a.geojson", "", "no GeoJSON"),
    ],
)  # fmt: skip
def test_broken_or_unsafe_file_is_refused_in_a_line(name, content, fault, tmp_path):
    with pytest.raises(InputError, match=fault) as error:
        read(tmp_path / name, content)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("kind", ["geojson", "json", "xml"])
def test_more_vertices_than_may_be_are_refused(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("lightmuseg.areas.annotations.MAX_VERTICES", 8)
    path = tmp_path / f"a.{kind}"
    annotations = [Annotation("tumor", box(0, 0, 9, 9)), Annotation("stroma", box(1, 1, 2, 2))]
    if kind == "xml":
        write_asap(path, annotations, CLASSES, "a")
    elif kind == "json":
        write_dsa(path, annotations, CLASSES, "a")
    else:
        path.write_text(json.dumps(to_geojson(annotations, CLASSES)))
    with pytest.raises(InputError, match="vertices"):
        read_annotations(path, "a", Counter())


@pytest.mark.parametrize("name", ["a.xml", "a.json", "a.geojson"])
def test_large_file_is_refused_unread(name, tmp_path, monkeypatch):
    monkeypatch.setattr("lightmuseg.areas.annotations.MAX_BYTES", 100)
    monkeypatch.setattr("lightmuseg.areas.geojson.MAX_BYTES", 100)
    with pytest.raises(InputError, match="simplify"):
        read(tmp_path / name, " " * 101)
