"""What labels say, pixel by pixel."""

import json
import zlib

import numpy as np
import pytest
import shapely
from PIL import Image, PngImagePlugin
from scipy import ndimage
from shapely.geometry import box

from lightmuseg.data.bcss import CODES
from lightmuseg.errors import InputError
from lightmuseg.label.label_file import read_ground_truth
from lightmuseg.wsi.readers.opening import open_slide

CLASSES = {"tumor": [1], "stroma": [2], "lymphocytic_infiltrate": [3]}


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


def test_label_image_with_a_text_without_end_is_refused_in_a_line(picture, tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)))
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "label.png", pnginfo=text)
    with pytest.raises(InputError, match=r"\Aa label: cannot be read as an image; [^\n]*\Z"):
        read_ground_truth(tmp_path / "label.png", "a label", picture, CLASSES, {})


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


@pytest.mark.parametrize(
    ("feature", "fault"),
    [
        ({"geometry": {"type": "Point", "coordinates": [3, 4]}}, "no polygon (1 x Point)"),
        ({"geometry": shapely.geometry.mapping(box(1, 1, 9, 9))}, "without a class"),
    ],
)  # fmt: skip
def test_label_holds_polygons_with_classes_and_nothing_else(feature, fault, picture, tmp_path):
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Feature", "properties": {}, **feature}))
    with pytest.raises(InputError) as error:
        read_ground_truth(tmp_path / "a.geojson", "a.geojson", picture, CLASSES, {})
    assert fault in str(error.value)
