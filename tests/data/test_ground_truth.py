"""What is drawn, as pixels: against GDAL's rasterisation."""

import numpy as np
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine
from scipy import ndimage
from shapely.geometry import box

from lightmuseg.data.bcss import CODES
from lightmuseg.data.ground_truth import GroundTruth, drawn_on
from lightmuseg.errors import InputError

SIZE = 500, 300


def blobs(seed):
    """Polygons by chance, some with holes, with codes."""
    rng = np.random.default_rng(seed)
    drawn = []
    for number in range(30):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 40))
        radii = rng.uniform(5, 120) * rng.uniform(0.6, 1, 40)
        x, y = rng.uniform(0, SIZE)
        shape = shapely.Polygon(np.c_[x + radii * np.cos(angles), y + radii * np.sin(angles)])
        if number % 3 == 0:
            shape = shape.difference(shapely.Point(x, y).buffer(radii.min() / 2))
        drawn.append((int(rng.integers(1, 21)), shape))
    return drawn


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("grid", [(0, 0, 1, 500, 300), (33.7, 12.1, 1.7, 200, 150), (100, 90, 0.3, 700, 500)])
def test_polygons_become_the_pixels_that_gdal_makes_of_them(seed, grid):
    x0, y0, step0, width, height = grid
    areas, polygons = drawn_on([*blobs(seed), (None, box(50, 50, 450.2, 220.7))], SIZE, "a")
    known = shapely.union_all([*areas, *(shape for _, shape in polygons)])
    place = Affine(step0, 0, x0, 0, step0, y0)
    shapes = [(known, CODES["other"]), *((shape, code) for code, shape in sorted(polygons, key=lambda p: -p[1].area))]
    expected = rasterize(shapes, (height, width), transform=place, fill=0, dtype=np.uint8)
    np.testing.assert_array_equal(GroundTruth(SIZE, known, polygons).codes(*grid), expected)


def test_smaller_polygons_lie_over_larger_ones_and_later_over_earlier():
    _, polygons = drawn_on([(2, box(50, 50, 80, 80)), (1, box(20, 20, 200, 200)), (3, box(60, 60, 90, 90))], SIZE, "a")
    assert [code for code, _ in polygons] == [1, 2, 3]


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_mask_of_fewer_pixels_covers_the_slide(factor):
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 22, (300 // factor, 500 // factor), dtype=np.uint8)
    truth = GroundTruth(SIZE, box(0, 0, *SIZE), mask=mask)
    expected = ndimage.zoom(mask, factor, order=0, grid_mode=True, mode="nearest")
    np.testing.assert_array_equal(truth.codes(0, 0, 1, 500, 300), expected)
    part = truth.codes(490, 290, 1, 20, 20)
    np.testing.assert_array_equal(part[:10, :10], expected[290:, 490:])
    assert not part[10:].any()
    assert not part[:, 10:].any()


def test_boxes_are_apart_and_hold_what_is_annotated():
    for seed in range(5):
        rng = np.random.default_rng(seed)
        parts = [box(x, y, x + w, y + h) for x, y, w, h in rng.integers(5, 60, (12, 4)) * [8, 4, 1, 1]]
        truth = GroundTruth(SIZE, shapely.union_all(parts).intersection(box(0, 0, *SIZE)))
        for margin in (0, 7.5):
            boxes = [box(x, y, x + w, y + h) for x, y, w, h in truth.boxes(margin)]
            union = shapely.union_all(boxes)
            # whole pixels
            assert sum(one.area for one in boxes) == pytest.approx(union.area, rel=0.02)
            around = truth.area.buffer(margin, join_style="mitre").intersection(box(0, 0, *SIZE))
            assert union.buffer(1e-9).contains(around)


def test_parts_that_touch_after_their_margin_share_a_box():
    truth = GroundTruth(SIZE, shapely.union_all([box(0, 0, 50, 60), box(70, 50, 90, 80), box(300, 200, 400, 290)]))
    assert sorted(truth.boxes()) == [(0, 0, 50, 60), (70, 50, 20, 30), (300, 200, 100, 90)]
    assert sorted(truth.boxes(10)) == [(0, 0, 100, 90), (290, 190, 120, 110)]


@pytest.mark.parametrize("beside", [box(600, 10, 700, 90), box(-600, 10, 20, 20), box(10, 10, 2000, 20)])
def test_polygon_beside_or_far_around_the_slide_is_refused(beside):
    with pytest.raises(InputError, match=r"a.json: holds a polygon within .* of 500 x 300 pixels"):
        drawn_on([(1, box(0, 0, 9, 9)), (2, beside)], SIZE, "a.json")
