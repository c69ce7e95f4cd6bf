import numpy as np
import pytest
import rasterio.features
import rasterio.transform
import shapely

from lightmuseg.areas.area import Intersection, RegionOfInterest, TissueMask, WholeSlide

GRIDS = [(0, 0, 2.0, 64, 48), (-33.5, 20.25, 3.7, 40, 70), (90, -15, 1.0, 30, 30), (500, 500, 4.0, 8, 8)]
TISSUE_STEP0 = 16.7


def star(points, x0, y0, radius, seed=0):
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, points))
    radii = radius * rng.uniform(0.5, 1, points)
    return np.stack([x0 + radii * np.cos(angles), y0 + radii * np.sin(angles)], axis=1)


@pytest.fixture
def polygons():
    """A star with a hole, and another one apart from it."""
    first = shapely.Polygon(star(80, 90, 80, 75), [star(9, 90, 80, 20, seed=1)])
    return shapely.union_all([first, shapely.Polygon(star(30, 190, 120, 40, seed=2))])


@pytest.fixture
def grid():
    return np.random.default_rng(3).random((9, 12)) < 0.3


@pytest.fixture
def tissue(grid):
    return TissueMask(grid, TISSUE_STEP0)


def wanted_by(test, x0, y0, step0, width, height):
    """Pixel by pixel."""
    return np.array(
        [[test(x0 + (j + 0.5) * step0, y0 + (i + 0.5) * step0) for j in range(width)] for i in range(height)]
    )


@pytest.mark.parametrize("place", GRIDS)
def test_whole_slide_ends_with_the_pixels_that_its_edges_cut(place):
    area = WholeSlide(100, 70)
    assert area.area0 == 7000
    half = place[2] / 2
    expected = wanted_by(lambda x0, y0: 0 <= x0 < 100 + half and 0 <= y0 < 70 + half, *place)
    assert np.array_equal(area.mask(*place), expected)


def test_whole_slide_covers_what_overlaps_it():
    area = WholeSlide(100, 70)
    assert area.covers(-10, -10, 10.1, 10.1)
    assert area.covers(99.9, 69.9, 10, 10)
    for box in ((100, 0, 10, 10), (0, 70, 10, 10), (-10, 0, 10, 10), (0, -10, 10, 10)):
        assert not area.covers(*box)


@pytest.mark.parametrize("place", GRIDS)
def test_tissue_mask_is_looked_up_by_pixel_centres(tissue, grid, place):
    def test(x0, y0):
        column, row = int(np.floor(x0 / TISSUE_STEP0)), int(np.floor(y0 / TISSUE_STEP0))
        return 0 <= row < 9 and 0 <= column < 12 and bool(grid[row, column])

    assert np.array_equal(tissue.mask(*place), wanted_by(test, *place))


def test_tissue_is_covered_where_a_pixel_of_it_overlaps_the_box(tissue, grid):
    rows, columns = np.nonzero(grid)
    pixels = shapely.box(*(TISSUE_STEP0 * side for side in (columns, rows, columns + 1, rows + 1)))
    rng = np.random.default_rng(4)
    boxes = [(*rng.uniform(-60, 260, 2), *rng.uniform(0.5, 40, 2)) for _ in range(500)]
    covered = [tissue.covers(*box) for box in boxes]
    expected = [
        bool((shapely.area(shapely.intersection(pixels, shapely.box(x, y, x + w, y + h))) > 0).any())
        for x, y, w, h in boxes
    ]
    assert covered == expected
    assert 50 < sum(covered) < 450


def test_tissue_area_is_that_of_its_pixels(tissue, grid):
    assert tissue.area0 == pytest.approx(grid.sum() * TISSUE_STEP0**2)
    assert np.array_equal(tissue.grid, grid)


def test_rectangle_holds_its_left_and_upper_edges_alone():
    # pixel centres lie on all four edges
    area = RegionOfInterest(shapely.box(10, 20, 30, 50))
    mask = area.mask(-0.5, -0.5, 1.0, 60, 60)
    expected = np.zeros((60, 60), bool)
    expected[20:50, 10:30] = True
    assert np.array_equal(mask, expected)


def test_polygons_are_rasterised_as_gdal_does_block_by_block(polygons):
    area = RegionOfInterest(polygons)
    step0, side, blocks = 0.9, 40, 7
    transform = rasterio.transform.Affine(step0, 0, 3.3, 0, step0, -7.1)
    expected = rasterio.features.rasterize([polygons], (side * blocks,) * 2, transform=transform).astype(bool)
    mask = np.block(
        [
            [area.mask(3.3 + side * step0 * j, -7.1 + side * step0 * i, step0, side, side) for j in range(blocks)]
            for i in range(blocks)
        ]
    )
    assert np.array_equal(mask, expected)
    assert 0.2 < mask.mean() < 0.8


def test_polygon_of_many_vertices_is_exact():
    area = RegionOfInterest(shapely.Polygon(star(5000, 1000, 1000, 900)))
    place = (600, 700, 2.0, 90, 80)
    expected = wanted_by(lambda x0, y0: area.shape.contains(shapely.Point(x0, y0)), *place)
    assert np.array_equal(area.mask(*place), expected)


def test_region_covers_just_the_boxes_it_shares_points_with(polygons):
    area = RegionOfInterest(polygons)
    rng = np.random.default_rng(5)
    boxes = [(*rng.uniform(-60, 260, 2), *rng.uniform(0.5, 40, 2)) for _ in range(500)]
    covered = [area.covers(*box) for box in boxes]
    assert covered == [polygons.intersection(shapely.box(x, y, x + w, y + h)).area > 0 for x, y, w, h in boxes]
    assert 50 < sum(covered) < 450


def test_tiles_that_only_touch_a_rectangle_are_not_covered():
    area = RegionOfInterest(shapely.box(512, 512, 1024, 1024))
    covered = [(x0, y0) for y0 in range(0, 2048, 256) for x0 in range(0, 2048, 256) if area.covers(x0, y0, 256, 256)]
    assert covered == [(512, 512), (768, 512), (512, 768), (768, 768)]


@pytest.mark.parametrize("place", GRIDS)
def test_intersection_wants_what_all_want(tissue, polygons, place):
    areas = [WholeSlide(150, 130), RegionOfInterest(polygons), tissue]
    expected = np.logical_and.reduce([area.mask(*place) for area in areas])
    assert np.array_equal(Intersection(areas).mask(*place), expected)


def test_intersection_covers_where_all_do():
    both = Intersection([RegionOfInterest(shapely.box(0, 0, 50, 50)), RegionOfInterest(shapely.box(40, 0, 90, 50))])
    assert both.covers(30, 10, 20, 20)
    assert not both.covers(0, 0, 30, 30)
    assert not both.covers(60, 0, 30, 30)
    assert both.area0 == pytest.approx(10 * 50, rel=1e-9)


def test_intersection_counts_its_area(tissue, grid, polygons):
    slide = shapely.box(0, 0, 150, 130)
    drawn = Intersection([WholeSlide(150, 130), RegionOfInterest(polygons)])
    assert drawn.area0 == pytest.approx(polygons.intersection(slide).area, rel=1e-3)
    rows, columns = np.nonzero(grid)
    pixels = shapely.union_all(shapely.box(*(TISSUE_STEP0 * side for side in (columns, rows, columns + 1, rows + 1))))
    three = Intersection([WholeSlide(150, 130), RegionOfInterest(polygons), tissue])
    assert three.area0 == pytest.approx(polygons.intersection(slide).intersection(pixels).area, rel=1e-3)


def test_areas_apart_have_nothing_in_common(tissue):
    apart = Intersection([RegionOfInterest(shapely.box(-50, 0, -10, 50)), tissue])
    assert apart.area0 == 0
    assert not apart.mask(-50, 0, 1.0, 300, 300).any()
