"""Annotations written and read again, and what they say pixel by pixel."""

import json

import numpy as np
import pytest
import shapely
from PIL import Image
from scipy import ndimage
from shapely.geometry import box

from lightmuseg.data.bcss import CODES
from lightmuseg.errors import InputError
from lightmuseg.label.annotations import Annotation, read_annotations, to_geojson, without_holes, write_asap, write_dsa
from lightmuseg.label.ground_truth import code_of, read_ground_truth
from lightmuseg.wsi.readers.opening import open_slide

CLASSES = {"tumor": [1], "stroma": [2], "lymphocytic_infiltrate": [3]}
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


@pytest.mark.parametrize("kind", ["xml", "geojson"])
def test_what_is_written_is_read_again(kind, tmp_path):
    annotations = [Annotation("tumor", RING), Annotation("stroma", box(0, 0, 50.25, 60))]
    path = tmp_path / f"a.{kind}"
    if kind == "xml":
        write_asap(path, annotations, list(CLASSES), 'a & "b" <c>')
    else:
        path.write_text(json.dumps(to_geojson(annotations, list(CLASSES))))
    read = read_annotations(path, "a")
    for annotation in annotations:
        parts = [one.polygon for one in read if one.class_name == annotation.class_name]
        assert same(shapely.union_all(parts), annotation.polygon)


def test_dsa_has_holes_and_colours(tmp_path):
    write_dsa(tmp_path / "a.json", [Annotation("tumor", RING)], list(CLASSES), "a")
    (element,) = json.loads((tmp_path / "a.json").read_text())["elements"]
    assert same(shapely.Polygon(element["points"], element["holes"]), RING)
    assert element["lineColor"] == "rgb(220,38,38)"


@pytest.mark.parametrize(
    ("name", "code"),
    [("Tumor", 1), ("tumor", 1), ("Immune cells", 3), ("Lymphocytic infiltrate", 3), ("Necrosis", 4), ("Ignore*", 7),
     ("Other", 21), ("background", 21), ("Region*", None), ("blood vessel", 18)],
)  # fmt: skip
def test_names_of_qupath_and_of_bcss_are_known(name, code):
    assert code_of(name, CLASSES) == code


def test_name_of_the_network_goes_before():
    assert code_of("Immune", {"immune": [11]}) == 11
    with pytest.raises(InputError, match="Banana"):
        code_of("Banana", CLASSES)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.full((300, 500, 3), 200, np.uint8)).save(tmp_path / "picture.png")
    with open_slide(tmp_path / "picture.png", mpp=0.25) as reader:
        yield reader


def truth(reader, path, features, **info):
    shapes = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shape),
            "properties": {"classification": {"name": name}},
        }
        for name, shape in features
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    return read_ground_truth(path, path.name, reader, CLASSES, info)


def test_smaller_polygons_lie_over_larger_ones(picture, tmp_path):
    drawn = [("Stroma", box(50, 50, 80, 80)), ("Tumor", box(20, 20, 200, 200)), ("Other", box(60, 60, 70, 70))]
    codes = truth(picture, tmp_path / "a.geojson", drawn).codes(0, 0, 1, 500, 300)
    expected = np.full((300, 500), CODES["other"])
    expected[20:200, 20:200], expected[50:80, 50:80], expected[60:70, 60:70] = 1, 2, CODES["other"]
    np.testing.assert_array_equal(codes, expected)


def test_outside_of_a_region_nothing_is_known(picture, tmp_path):
    drawn = [("Tumor", box(20, 20, 200, 200)), ("Region*", box(100, 100, 300, 250))]
    found = truth(picture, tmp_path / "a.geojson", drawn)
    expected = np.zeros((300, 500))
    expected[100:250, 100:300], expected[100:200, 100:200] = CODES["other"], 1
    np.testing.assert_array_equal(found.codes(0, 0, 1, 500, 300), expected)
    np.testing.assert_array_equal(found.codes(90, 80, 2, 60, 50), expected[81:181:2, 91:211:2])
    named = truth(picture, tmp_path / "b.geojson", drawn[:1], bbox=[100, 100, 200, 150])
    np.testing.assert_array_equal(named.codes(0, 0, 1, 500, 300), expected)


def test_label_image_says_all_but_255(picture, tmp_path):
    indices = np.zeros((300, 500), np.uint8)
    indices[:50], indices[50:100], indices[200:] = 1, 3, 255
    Image.fromarray(indices).save(tmp_path / "a.png")
    found = read_ground_truth(tmp_path / "a.png", "a.png", picture, CLASSES, {})
    codes = found.codes(0, 0, 0.5, 1010, 600)
    expected = np.array([CODES["other"], 1, 2, 3])[np.where(indices == 255, 0, indices)]
    expected[200:] = 0
    np.testing.assert_array_equal(codes[:, :1000], ndimage.zoom(expected, 2, order=0))
    assert not codes[:, 1000:].any()


def test_parts_of_a_slide_that_are_annotated_are_boxes_apart(picture, tmp_path):
    drawn = [("Region*", box(0, 0, 50, 60)), ("Region*", box(40, 50, 90, 80)), ("Region*", box(300, 200, 400, 300))]
    boxes = truth(picture, tmp_path / "a.geojson", drawn).boxes
    assert sorted((b.x0, b.y0, b.width0, b.height0) for b in boxes) == [(0, 0, 90, 80), (300, 200, 100, 100)]
