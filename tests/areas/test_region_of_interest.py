import io
import json
import logging
import zipfile

import numpy as np
import pytest
import shapely

from lightmuseg.areas import geojson
from lightmuseg.areas.region_of_interest import check_region, read_region
from lightmuseg.errors import InputError

SLIDE = 1000, 800
SQUARE = [[10, 20], [110, 20], [110, 220], [10, 220], [10, 20]]
HOLE = [[50, 50], [60, 50], [60, 70], [50, 70], [50, 50]]
BOW_TIE = [[100, 100], [200, 200], [200, 100], [100, 200], [100, 100]]


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry):
    return {"type": "Feature", "id": "PathAnnotationObject", "geometry": geometry, "properties": {"isLocked": False}}


def square(x0, y0, side):
    return polygon([[x0, y0], [x0 + side, y0], [x0 + side, y0 + side], [x0, y0 + side], [x0, y0]])


@pytest.fixture
def write(tmp_path):
    def call(content):
        path = tmp_path / "Region ä 1.geojson"
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return call


def refused(text, *words):
    with pytest.raises(InputError) as caught:
        read_region(text, *SLIDE)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for word in ("--region", *words):
        assert word in message, message


@pytest.mark.parametrize("text", ["100,200,30,40", " 100, 200 ,3e1,40.0"])
def test_rectangle_is_read_as_numbers(text):
    region = read_region(text, *SLIDE)
    assert region.bounds0 == (100, 200, 130, 240)
    assert region.area0 == 1200


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["neither"]), ("1,2,3", ["1,2,3", "neither"]), ("1,2,3,4,5", ["neither"]), ("a,b,c,d", ["a,b,c,d"]),
        ("missing.geojson", ["missing.geojson", "neither"]), ("1,2,\0,4", ["neither"]), ("x" * 5000, ["neither"]),
        ("1,2,0,4", ["above 0"]), ("1,2,3,-4", ["above 0"]), ("nan,2,3,4", ["finite"]), ("1,2,inf,4", ["finite"]),
        ("1000,0,10,10", ["outside the slide", "1000 x 800"]), ("-20,0,20,10", ["outside the slide"]),
        ("0,0,1e-200,1e-200", ["no area"]), ("0,0,1e300,1e300", ["1e+300", "beyond 10000000"]),
        ("1e308,0,1e308,1", ["finite"]), ("-10000001,0,1,1", ["beyond"]),
    ],
)  # fmt: skip
def test_useless_rectangle_is_refused(text, words):
    refused(text, *words)


def test_folder_is_refused(tmp_path):
    refused(str(tmp_path), "neither")


def test_rectangle_over_the_edge_is_cut_off_with_a_warning(caplog):
    region = read_region("900,700,200,200", *SLIDE)
    assert region.bounds0 == (900, 700, 1000, 800)
    assert "75%" in caplog.text


def test_rectangle_up_to_the_edge_gives_no_warning(caplog):
    read_region("0,0,1000,800", *SLIDE)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "wrap",
    [
        lambda geometry: geometry,
        feature,
        lambda geometry: [feature(geometry)],
        lambda geometry: {"type": "FeatureCollection", "features": [feature(geometry)]},
        lambda geometry: {"type": "GeometryCollection", "geometries": [geometry]},
        lambda geometry: {"type": "MultiPolygon", "coordinates": [geometry["coordinates"]]},
        lambda geometry: {**geometry, "coordinates": [[[*p, 0] for p in ring] for ring in geometry["coordinates"]]},
        lambda geometry: {**geometry, "coordinates": [ring[:-1] for ring in geometry["coordinates"]]},
    ],
    ids=["geometry", "feature", "list", "features", "geometries", "multi", "3d", "open"],
)
def test_geojson_is_read_in_every_wrapping(write, wrap):
    region = read_region(write(wrap(polygon(SQUARE, HOLE))), *SLIDE)
    assert region.shape.equals(shapely.Polygon(SQUARE, [HOLE]))
    assert region.area0 == 100 * 200 - 10 * 20


def test_byte_order_mark_is_skipped(write):
    assert read_region(write(b"\xef\xbb\xbf" + json.dumps(polygon(SQUARE)).encode()), *SLIDE).area0 == 20_000


def test_polygons_that_overlap_count_once(write):
    content = {"type": "FeatureCollection", "features": [feature(square(x0, 0, 100)) for x0 in (0, 50, 300)]}
    assert read_region(write(content), *SLIDE).area0 == 150 * 100 + 100 * 100


def test_outline_that_crosses_itself_is_repaired_with_a_warning(write, caplog):
    region = read_region(write(polygon(BOW_TIE)), *SLIDE)
    assert region.area0 == pytest.approx(5000)
    assert region.shape.is_valid
    assert "repaired" in caplog.text


def test_loop_of_a_drawn_outline_stays_inside(write):
    # it goes round the square from 100 to 200 twice, as hands do where they close an outline
    outline = [[0, 0], [200, 0], [200, 200], [100, 200], [100, 100], [300, 100], [300, 300], [0, 300], [0, 0]]
    region = read_region(write(polygon(outline)), *SLIDE)
    assert region.shape.is_valid
    assert region.shape.contains(shapely.Point(150, 150))
    assert region.area0 == 300 * 300 - 100 * 100


def test_polygon_over_the_edge_is_cut_off_with_a_warning(write, caplog):
    region = read_region(write(square(-50, -50, 100)), *SLIDE)
    assert region.bounds0 == (0, 0, 50, 50)
    assert "75%" in caplog.text


def test_polygon_that_touches_the_edge_from_outside_too_leaves_no_line(write):
    content = [square(-50, 0, 50), square(100, 100, 50)]
    region = read_region(write(content), *SLIDE)
    assert region.shape.geom_type == "Polygon"
    assert region.area0 == 2500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["no GeoJSON"]), ("{", ["no GeoJSON"]), (b"\xff\xfe\x00", ["no GeoJSON"]), ("9" * 5000, ["no GeoJSON"]),
        ("null", ["no geometry"]), ("3", ["no geometry"]), ({}, ["no geometry"]), ([], ["no polygon;"]),
        ({"type": ["Polygon"]}, ["Polygon"]), ({"type": "FeatureCollection"}, ["no geometry"]),
        ({"type": "FeatureCollection", "features": []}, ["no polygon"]),
        (feature(None), ["no polygon but 1 x object without geometry"]),
        ({"type": "MultiPolygon", "coordinates": []}, ["no polygon but 1 x empty MultiPolygon"]),
        ({"type": "Polygon"}, ["no list"]), (polygon(), ["no polygon but"]), (polygon([]), ["no polygon but"]),
        ({"type": "Circle", "coordinates": [1, 2], "radius": 3}, ["a Circle"]),
        (polygon([[1, 2], [3, 4]]), ["no list"]), (polygon([[1, 2], [3, 4], [5]]), ["no list"]),
        (polygon([["1", "2"], ["3", "4"], ["5", "9"]]), ["no list"]), (polygon([1, 2, 3]), ["no list"]),
        (polygon([[1, 2], [3, 4], [5, 10**400]]), ["no list"]),
        ({"type": "MultiPolygon", "coordinates": 3}, ["no list"]),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1]]]}', ["finite"]),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1e999, 1], [1, 1]]]}', ["finite"]),
        (polygon([[0, 0], [1e300, 1], [1, 1]]), ["1e+300", "beyond 10000000"]),
        (polygon(SQUARE, [[0, 0], [1, 1], [1, -10_000_001]]), ["-1e+07", "beyond"]),
        (polygon([[0.5, 0], [10**400, 1], [1, 1]]), ["no list"]),
        (polygon([[0, 0], [10, 10], [20, 20]]), ["no area"]), (polygon([[5, 5]] * 4), ["no area"]),
        (square(2000, 0, 10), ["outside the slide", "2000"]), (square(-10, 0, 10), ["outside the slide"]),
        ("[" * 100_000, ["GeoJSON"]),
    ],
)  # fmt: skip
def test_useless_geojson_is_refused(write, content, words):
    path = write(content)
    refused(path, path, *words)


LEFT_OUT = {
    "Point": {"type": "Point", "coordinates": [1, 2]},
    "MultiPoint": {"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]},
    "LineString": {"type": "LineString", "coordinates": [[1, 2], [3, 4]]},
    "MultiLineString": {"type": "MultiLineString", "coordinates": [[[1, 2], [3, 4]]]},
    "object without geometry": None,
    "empty Polygon": polygon(),
    "empty MultiPolygon": {"type": "MultiPolygon", "coordinates": []},
    "polygon without area": polygon([[0, 0], [10, 10], [20, 20], [0, 0]]),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_has_no_area_is_left_out_counted_and_recorded(write, caplog, kind):
    thin = feature(LEFT_OUT[kind])
    region = read_region(
        write({"type": "FeatureCollection", "features": [thin, feature(square(5, 5, 10)), thin]}), *SLIDE
    )
    assert region.shape.equals(shapely.box(5, 5, 15, 15))
    (warning,) = region.warnings
    assert warning.startswith("region: ")
    assert f"2 x {kind}" in warning
    assert f"2 x {kind}" in caplog.text


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_file_without_any_area_is_refused_by_what_it_holds(write, kind):
    refused(write([feature(LEFT_OUT[kind])]), "area" if "polygon" in kind else f"1 x {kind}")


def classified(geometry, name, **classification):
    return {**feature(geometry), "properties": {"classification": {"name": name, **classification}}}


@pytest.mark.parametrize(
    "hole",
    [
        classified(square(50, 50, 100), "Ignore*"),
        classified(square(50, 50, 100), "ignore *", color=[1, 2, 3]),
        classified(square(50, 50, 100), None, names=["Ignore*", "Fold"]),
        classified(square(50, 50, 100), "Ignore*: Fold"),
        classified({"type": "GeometryCollection", "geometries": [square(50, 50, 100)]}, "Ignore*"),
    ],
)
def test_areas_that_qupath_ignores_are_holes(write, caplog, hole):
    areas = [classified(square(0, 0, 100), "Region*"), hole, classified(square(20, 20, 100), "Tumor")]
    region = read_region(write({"type": "FeatureCollection", "features": areas}), *SLIDE)
    expected = shapely.box(0, 0, 100, 100) | shapely.box(20, 20, 120, 120)
    assert region.shape.equals(expected - shapely.box(50, 50, 150, 150))
    assert (region.warnings, caplog.text) == ((), "")


def test_holes_alone_are_holes_in_the_slide(write):
    region = read_region(write([classified(square(50, 50, 100), "Ignore*")]), *SLIDE)
    assert region.area0 == 1000 * 800 - 100 * 100
    assert "the rest of the slide" in region.warnings[0]


def test_holes_over_all_areas_are_refused(write):
    refused(write([classified(square(0, 0, 100), "Ignore*"), feature(square(5, 5, 10))]), "no area")


def test_other_classes_with_a_star_are_areas_and_said(write):
    region = read_region(
        write([classified(square(0, 0, 10), "Tissue*"), classified(square(20, 0, 10), "Region*")]), *SLIDE
    )
    assert region.area0 == 200
    assert ["Tissue*" in warning and "Region*" not in warning for warning in region.warnings] == [True]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"])
def test_encodings_of_other_programs_are_read(write, encoding):
    text = json.dumps({**feature(polygon(SQUARE)), "properties": {"name": "Pr\u00e4parat"}}, ensure_ascii=False)
    assert read_region(write(text.encode(encoding)), *SLIDE).area0 == 20_000


def zipped(files, **options):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def test_a_compressed_export_is_read(write):
    files = {"a.geojson": json.dumps(polygon(SQUARE)), "__MACOSX/._a.geojson": "x"}
    assert read_region(write(zipped(files)), *SLIDE).area0 == 20_000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (zipped({}), ["holds 0 files"]), (zipped({"a": "{}", "b": "{}"}), ["holds 2 files"]),
        (zipped({"a": "{"}), ["no GeoJSON"]), (zipped({"a": " " * 3000}), ["MB", "simplify"]),
        (zipped({"a": "1" * 1000})[:60], ["cannot be unpacked"]), (b"PK", ["cannot be unpacked"]),
    ],
    # a zip holds the time of day
    ids=["empty", "two", "no GeoJSON", "large", "cut", "two letters"],
)  # fmt: skip
def test_a_zip_that_cannot_be_is_refused(write, monkeypatch, content, words):
    monkeypatch.setattr(geojson, "MAX_BYTES", 2000)
    refused(write(content), *words)


@pytest.mark.parametrize(
    "case", ["root_v04.geojson", "null_geometry.geojson", "empty_polygon.geojson", "with_point.geojson",
             "with_line.geojson", "zipped.geojson.zip"],
)  # fmt: skip
def test_exports_of_qupath_give_their_rectangle(data, case):
    path = data / "slide_cases" / case
    if not path.exists():
        pytest.skip("not there")
    assert read_region(str(path), *SLIDE).shape.equals(shapely.box(10, 10, 110, 110))


def test_deep_nesting_is_no_recursion(write):
    content = polygon(SQUARE)
    for _ in range(200):
        content = {"type": "GeometryCollection", "geometries": [content]}
    assert read_region(write(content), *SLIDE).area0 == 20_000


def test_too_large_a_file_is_refused_unread(write, monkeypatch):
    monkeypatch.setattr(geojson, "MAX_BYTES", 100)
    refused(write(" " * 101 + json.dumps(polygon(SQUARE))), "MB", "simplify")


def test_too_many_vertices_are_refused(write):
    ring = np.stack([np.arange(600_000) % 1000, np.arange(600_000) // 1000], axis=1)
    refused(write(polygon(ring.tolist())), "vertices", "simplify")


def test_tangle_is_refused_before_it_takes_forever(write):
    ring = np.random.default_rng(0).uniform(0, 700, (5000, 2)).round(2)
    refused(write(polygon(ring.tolist())), "cross")


def test_detailed_outline_is_read(write, caplog):
    angles = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    radii = 300 + 20 * np.sin(300 * angles)
    ring = np.stack([500 + radii * np.cos(angles), 400 + radii * np.sin(angles)], axis=1)
    with caplog.at_level(logging.WARNING):
        region = read_region(write(polygon(ring.tolist())), *SLIDE)
    assert caplog.text == ""
    # the area of r(a) is the half integral of its square
    assert region.area0 == pytest.approx(np.pi * (300**2 + 20**2 / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"type": "Point", "coordinates": [1, 2]}, "holds no polygon but 1 x Point"),
        (polygon([[0, 0], [100, 0], [0, 0]]), "has no area"),
        (polygon(SQUARE), None),
        (classified(square(50, 50, 100), "Ignore*"), None),
    ],
)
def test_polygons_that_can_be_no_region_are_refused_without_a_slide(write, content, said):
    path = write(content)
    if said is None:
        check_region(path)
    else:
        with pytest.raises(InputError, match=said):
            check_region(path)
