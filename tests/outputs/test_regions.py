"""regions.geojson gives the class map back, drawn by another library, and is what QuPath imports."""

import json
import uuid

import numpy as np
import pytest
import shapely
from scipy import ndimage
from segmented_slides import segmented
from skimage import draw

from lightmuseg.outputs.regions import regions, write

NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")


class ClassMap:
    def __init__(self, classes, mpp=0.5, downsample=1.0, class_names=NAMES):
        self.classes, self.mpp, self.downsample, self.class_names = classes, mpp, downsample, class_names
        self.height, self.width = classes.shape
        self.rows_read = 0

    def bands(self, height):
        for row in range(0, self.height, height):
            band = self.classes[row : row + height]
            self.rows_read += len(band)
            yield band.copy()


def write_regions(path, class_map, tolerance_um=None):
    write(path, segmented(class_map, tolerance_um=tolerance_um))


def drawn(shape, found, downsample=1.0):
    """Class indices [H, W] of (class, polygon) pairs, by scikit-image; a pixel is inside where its middle is."""
    classes = np.zeros(shape, np.uint8)
    for value, polygon in found:
        inside = np.zeros(shape, bool)
        for ring in (polygon.exterior, *polygon.interiors):
            x, y = np.array(ring.coords).T / downsample - 0.5
            inside[draw.polygon(y, x, shape)] ^= True
        assert not classes[inside].any()
        classes[inside] = value
    return classes


def features(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    return content["features"]


def noise(height, width, classes=5, seed=0):
    return np.random.default_rng(seed).integers(0, classes, (height, width)).astype(np.uint8)


def tissue(height, width, seed=0):
    """Blobs of several sizes with ragged borders, specks among them, and a corner that could not be read."""
    random = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(random.standard_normal((height, width)), scale) for scale in (20, 6, 1.5)]
    mixed = sum(weight * field / field.std() for weight, field in zip((1, 0.5, 0.3), fields, strict=True))
    classes = np.digitize(mixed, (-0.7, 0.0, 0.4, 1.1)).astype(np.uint8)
    classes[-20:, -30:] = 255
    return classes


def spiral(side):
    classes = np.zeros((side, side), np.uint8)
    row, column, step = 0, 0, (0, 1)
    classes[0, 0] = 1
    for _ in range(2 * side):
        while True:
            ahead = [(row + n * step[0], column + n * step[1]) for n in (1, 2)]
            inside = [0 <= r < side and 0 <= c < side for r, c in ahead]
            if not inside[0] or classes[ahead[0]] or (inside[1] and classes[ahead[1]]):
                break
            row, column = ahead[0]
            classes[row, column] = 1
        step = (step[1], -step[0])
    return classes


def comb(side):
    classes = np.full((side, side), 2, np.uint8)
    classes[:, ::2] = 1
    classes[0] = 1
    return classes


def apart(side):
    """Two regions of one class with an empty block of 16 pixels between them."""
    classes = np.zeros((side, 48), np.uint8)
    classes[:, :16] = classes[:, 32:] = 1
    return classes


def diagonals(side):
    """Pixels that touch by corners only, of one class, of two, and around a hole."""
    classes = np.zeros((side, side), np.uint8)
    index = np.arange(side)
    classes[index, index] = 1
    classes[index[:-1], index[1:]] = index[:-1] % 2
    classes[index, -1 - index] = 2
    classes[2:7, 10:15] = 3
    classes[3, 11] = classes[4, 12] = classes[5, 11] = 0
    return classes


PATTERNS = {
    "spiral": spiral(41),
    "comb": comb(33),
    "diagonals": diagonals(37),
    "apart": apart(20),
    "one_pixel": np.ones((1, 1), np.uint8),
    "one_row": noise(1, 29),
    "one_column": noise(30, 1),
    "one_class": np.full((23, 31), 4, np.uint8),
    "ring_of_rings": (np.maximum(*np.abs(np.mgrid[-15:16, -15:16])) % 3).astype(np.uint8),
    "two_class_noise": noise(31, 40, 2),
    "noise": noise(40, 31),
    "no_background": noise(35, 35, 4) + 1,
    "tissue": tissue(110, 120),
}


@pytest.fixture(params=PATTERNS)
def pattern(request):
    return PATTERNS[request.param]


@pytest.fixture(params=[3, 16, 1000], ids=lambda side: f"blocks_of_{side}")
def block(request):
    return request.param


def regions_by_scipy(classes):
    return sum(ndimage.label(classes == value)[1] for value in np.unique(classes) if value)


def test_every_region_is_one_valid_polygon_and_every_pixel_inside_its_own(pattern, block):
    found = list(regions(ClassMap(pattern), 0.7, block))
    assert len(found) == regions_by_scipy(pattern)
    assert all(polygon.geom_type == "Polygon" and polygon.is_valid for _, polygon in found)
    np.testing.assert_array_equal(drawn(pattern.shape, found), pattern)


def test_without_tolerance_outlines_are_those_of_the_pixels(pattern, block):
    found = list(regions(ClassMap(pattern), 0, block))
    assert len(found) == regions_by_scipy(pattern)
    assert all(polygon.is_valid for _, polygon in found)
    for value in np.unique(pattern[pattern > 0]):
        rows, columns = np.nonzero(pattern == value)
        pixels = shapely.union_all(shapely.box(columns, rows, columns + 1, rows + 1))
        outline = shapely.union_all([polygon for other, polygon in found if other == value])
        assert outline.equals(pixels)
        assert sum(polygon.area for other, polygon in found if other == value) == len(rows)


@pytest.mark.parametrize("tolerance", [0.2, 0.5, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("name", ["spiral", "diagonals", "noise", "tissue", "ring_of_rings"])
@pytest.mark.parametrize("block", [16, 1000])
def test_borders_leave_the_pixels_borders_by_the_tolerance_at_most(name, tolerance, block):
    classes = PATTERNS[name]
    exact, found = (list(regions(ClassMap(classes), t, block)) for t in (0, tolerance))
    assert [value for value, _ in found] == [value for value, _ in exact]
    for (_, pixels), (_, polygon) in zip(exact, found, strict=True):
        assert polygon.is_valid
        assert len(polygon.interiors) == len(pixels.interiors)
        distance = shapely.hausdorff_distance(pixels.boundary, polygon.boundary, densify=0.1)
        # coordinates are rounded to hundredths
        assert distance <= tolerance + 0.01


@pytest.mark.parametrize("tolerance", [0.7, 2.0, 6.0])
@pytest.mark.parametrize("block", [16, 1000])
@pytest.mark.parametrize("seed", [1, 42, 94, 188])
def test_neighbours_leave_no_gaps_and_do_not_overlap(tolerance, block, seed):
    # of some seeds a region would be turned inside out
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((30, 30)), 1.2)
    classes = np.digitize(field, (-0.15, 0.0, 0.15)).astype(np.uint8) + 1
    polygons = [polygon for _, polygon in regions(ClassMap(classes), tolerance, block)]
    assert sum(polygon.area for polygon in polygons) == pytest.approx(classes.size, rel=1e-9)
    assert shapely.union_all(polygons).area == pytest.approx(classes.size, rel=1e-9)


def test_smooth_borders_need_few_points():
    rows, columns = np.mgrid[:200, :200]
    disc = ((rows - 100) ** 2 + (columns - 100) ** 2 < 80**2).astype(np.uint8)
    ((_, exact),), ((_, polygon),) = (list(regions(ClassMap(disc), tolerance)) for tolerance in (0, 0.7))
    assert shapely.get_num_coordinates(polygon) < 0.6 * shapely.get_num_coordinates(exact)
    assert polygon.area == pytest.approx(disc.sum(), rel=0.005)


def test_a_greater_tolerance_needs_fewer_points_though_some_borders_would_cross():
    classes = tissue(300, 300)
    exact, usual, rough = (
        sum(shapely.get_num_coordinates(polygon) for _, polygon in regions(ClassMap(classes), tolerance))
        for tolerance in (0, 0.7, 2.0)
    )
    assert usual < 0.75 * exact
    assert rough < 0.85 * usual


def test_a_region_is_given_out_once_no_later_block_can_touch_it():
    classes = np.zeros((100, 20), np.uint8)
    classes[2:5, 2:5] = classes[8:15, 8:12] = classes[22:25, 3:6] = 1
    classes[:, 19] = 2
    class_map = ClassMap(classes)
    rows_read = [(class_map.rows_read, polygon.bounds[1]) for _, polygon in regions(class_map, 0.7, 10)]
    assert rows_read == [(10, 2), (20, 8), (30, 22), (100, 0)]


def test_the_file_gives_the_map_back_at_level_0(tmp_path):
    classes = tissue(300, 280, seed=2)
    class_map = ClassMap(classes, mpp=0.5, downsample=1.002)
    write_regions(tmp_path / "regions.geojson", class_map)
    value = {name: index for index, name in enumerate(NAMES, 1)} | {"unread": 255}
    found = [
        (value[feature["properties"]["classification"]["name"]], shapely.from_geojson(json.dumps(feature["geometry"])))
        for feature in features(tmp_path / "regions.geojson")
    ]
    assert all(polygon.is_valid for _, polygon in found)
    assert shapely.total_bounds([polygon for _, polygon in found])[2:] == pytest.approx(
        [280 * 1.002, 300 * 1.002], abs=0.01
    )
    again = drawn(classes.shape, found, downsample=1.002)
    for index in np.unique(classes):
        intersection = ((again == index) & (classes == index)).sum()
        assert intersection / ((again == index) | (classes == index)).sum() > 0.98


@pytest.mark.parametrize(("tolerance_um", "mpp", "apart"), [(0.0, 0.5, 0.0), (0.3, 0.5, 0.6), (2.0, 4.0, 0.5)])
def test_the_tolerance_is_in_um(tmp_path, tolerance_um, mpp, apart):
    classes = tissue(80, 80, seed=3)
    write_regions(tmp_path / "a", ClassMap(classes, mpp=mpp, downsample=2.0), tolerance_um)
    polygons = [shapely.from_geojson(json.dumps(feature["geometry"])) for feature in features(tmp_path / "a")]
    exact = [shapely.affinity.scale(p, 2, 2, origin=(0, 0)) for _, p in regions(ClassMap(classes), 0)]
    distances = [shapely.hausdorff_distance(*pair, densify=0.1) for pair in zip(polygons, exact, strict=True)]
    assert apart * 2 * 0.5 <= max(distances) <= apart * 2 + 0.01


def test_features_are_annotations_as_qupath_reads_them(tmp_path):
    classes = np.zeros((20, 20), np.uint8)
    classes[2:12, 2:12] = 1
    classes[4:8, 4:8] = 2
    classes[15, 15] = 255
    write_regions(tmp_path / "a", ClassMap(classes, class_names=("tumor", "Fettgewebe “ä”")))
    by_name = {feature["properties"]["classification"]["name"]: feature for feature in features(tmp_path / "a")}
    assert set(by_name) == {"tumor", "Fettgewebe “ä”", "unread"}
    for feature in by_name.values():
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["isLocked"] is False
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
    assert by_name["tumor"]["properties"]["classification"]["color"] == [220, 38, 38]
    assert len(by_name["tumor"]["geometry"]["coordinates"]) == 2
    assert len({str(uuid.UUID(feature["id"])) for feature in by_name.values()}) == 3


def test_bytes_repeat_and_no_two_ids_are_alike(tmp_path):
    for name in "ab":
        write_regions(tmp_path / name, ClassMap(tissue(100, 100)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = features(tmp_path / "a")
    assert len({feature["id"] for feature in found}) == len(found) > 20


def test_a_map_without_regions_is_an_empty_collection(tmp_path):
    write_regions(tmp_path / "a", ClassMap(np.zeros((30, 40), np.uint8)))
    assert features(tmp_path / "a") == []


def test_a_fault_of_the_disk_is_raised(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        write_regions(tmp_path / "absent" / "a", ClassMap(np.ones((3, 3), np.uint8)))
