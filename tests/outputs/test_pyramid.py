"""classes.tif, read back by OpenSlide, tifffile and Pillow."""

import errno
import io
import json
import resource
from collections import Counter
from itertools import pairwise
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image
from segmented_slides import segmented

from lightmuseg.classes import COLOURS
from lightmuseg.outputs import pyramid
from lightmuseg.outputs.pyramid import halve

NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
GREY = (128, 128, 128)


def class_map_of(classes, mpp=0.5, names=NAMES):
    def bands(height):
        return (classes[top : top + height] for top in range(0, len(classes), height))

    height, width = classes.shape
    return SimpleNamespace(width=width, height=height, mpp=mpp, class_names=names, bands=bands)


def write_pyramid(path, class_map, ome=False):
    (pyramid.write_ome if ome else pyramid.write)(path, segmented(class_map))


def blobs(width, height, seed=0):
    """Patches of 16 pixels, some unread, with single pixels of other classes strewn over them."""
    random = np.random.default_rng(seed)
    coarse = random.choice(np.array([0, 0, 1, 2, 3, 4, 255], np.uint8), (-(-height // 16), -(-width // 16)))
    classes = coarse.repeat(16, 0).repeat(16, 1)[:height, :width].copy()
    strewn = random.random(classes.shape) < 0.2
    classes[strewn] = random.integers(0, 5, strewn.sum(), np.uint8)
    return classes


def halved_by_counting(classes):
    """The mode of every two by two pixels, one after another."""
    rows, columns = classes.shape
    half = np.empty((-(-rows // 2), -(-columns // 2)), np.uint8)
    for row, column in np.ndindex(half.shape):
        block = [
            classes[min(2 * row + down, rows - 1), min(2 * column + right, columns - 1)]
            for down in (0, 1)
            for right in (0, 1)
        ]
        # Counter keeps the order in which it meets its members
        half[row, column] = Counter(block).most_common(1)[0][0]
    return half


def levels_of(path):
    with tifffile.TiffFile(path) as file:
        first = file.pages[0]
        pages = [first, *first.pages] if file.is_ome and first.pages else list(file.pages)
        # tifffile takes no image for a level of another whose width or height is 1 already
        if min(pages[-1].shape) > 1:
            assert [[level.shape for level in series.levels] for series in file.series] == [[p.shape for p in pages]]
        assert [page.is_reduced for page in pages] == [False] + [True] * (len(pages) - 1)
        assert all(page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE for page in pages)
        return [page.asarray() for page in pages]


def test_halving_takes_the_mode_and_of_ties_the_first():
    every_block = np.stack(np.meshgrid(*[[0, 1, 2, 255]] * 4, indexing="ij"), -1).reshape(-1, 2, 2).astype(np.uint8)
    classes = np.hstack(every_block)
    assert np.array_equal(halve(classes), halved_by_counting(classes))


@pytest.mark.parametrize("ome", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (257, 1), (1, 513), (300, 1500), (1030, 700), (512, 512), (1024, 1024)])
def test_every_level_is_the_mode_of_the_level_above(tmp_path, size, ome):
    classes = blobs(*size)
    write_pyramid(tmp_path / "classes.tif", class_map_of(classes), ome)
    levels = levels_of(tmp_path / "classes.tif")
    assert np.array_equal(levels[0], classes)
    for finer, level in pairwise(levels):
        assert np.array_equal(level, halved_by_counting(finer))
    assert max(levels[-1].shape) <= 512
    assert all(max(level.shape) > 512 for level in levels[:-1])


def test_a_map_much_longer_than_its_tiles_has_all_its_levels(tmp_path):
    classes = np.arange(9001, dtype=np.uint32).repeat(3).reshape(9001, 3).astype(np.uint8)
    write_pyramid(tmp_path / "classes.tif", class_map_of(classes))
    levels = levels_of(tmp_path / "classes.tif")
    assert [len(level) for level in levels] == [9001, 4501, 2251, 1126, 563, 282]
    for finer, level in pairwise(levels):
        assert np.array_equal(level, halved_by_counting(finer))


@pytest.mark.parametrize("size", [(1, 1), (257, 1), (300, 1500), (1030, 700)])
def test_openslide_shows_the_classes_colours_at_every_level(tmp_path, size):
    path = tmp_path / "classes.tif"
    write_pyramid(path, class_map_of(blobs(*size), mpp=0.4987))
    palette = np.zeros((256, 3), np.uint8)
    palette[[0, 255]] = (255, 255, 255), GREY
    palette[1:5] = [COLOURS[name] for name in NAMES]
    levels = levels_of(path)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == tuple(level.shape[::-1] for level in levels)
        for axis in "xy":
            assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(0.4987, rel=1e-6)
        for number, level in enumerate(levels):
            shown = np.asarray(slide.read_region((0, 0), number, slide.level_dimensions[number]))
            assert np.array_equal(shown[..., :3], palette[level])
            assert (shown[..., 3] == 255).all()


def test_pillow_finds_indices_and_their_palette(tmp_path):
    classes = blobs(400, 300)
    write_pyramid(tmp_path / "classes.tif", class_map_of(classes, names=("tumor",)))
    with Image.open(tmp_path / "classes.tif") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), classes)
        palette = np.reshape(image.getpalette(), (256, 3)).tolist()
    assert palette[:2] == [[255, 255, 255], list(COLOURS["tumor"])]
    assert palette[255] == list(GREY)


@pytest.mark.parametrize("mpp", [0.5, 0.25, 0.4987, 1 / 3, 2.0000031])
@pytest.mark.parametrize("ome", [False, True])
def test_um_per_pixel_come_back_and_double_with_each_level(tmp_path, mpp, ome):
    write_pyramid(tmp_path / "classes.tif", class_map_of(blobs(1030, 20), mpp), ome)
    with tifffile.TiffFile(tmp_path / "classes.tif") as file:
        for number, level in enumerate(file.series[0].levels):
            tags = level.keyframe.tags
            assert tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
            for axis in "XY":
                pixels, centimetres = tags[f"{axis}Resolution"].value
                assert 1e4 * centimetres / pixels == pytest.approx(mpp * 2**number, rel=1e-6)
        assert number == 2


def test_the_description_tells_what_the_indices_mean(tmp_path):
    write_pyramid(tmp_path / "classes.tif", class_map_of(blobs(20, 20), names=("tumor", "stroma")))
    with tifffile.TiffFile(tmp_path / "classes.tif") as file:
        page = file.pages[0]
        assert json.loads(page.description) == {
            "classes": {"0": "other", "1": "tumor", "2": "stroma", "255": "unread"},
            "mpp": 0.5,
        }
        assert page.software.startswith("lightmuseg ")
        assert "DateTime" not in page.tags


def test_ome_xml_is_what_tifffile_would_write(tmp_path):
    path = tmp_path / "classes.ome.tif"
    write_pyramid(path, class_map_of(blobs(1300, 600), mpp=0.4987, names=("tumor", "fat & <skin>")), ome=True)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert [level.shape for level in file.series[0].levels] == [(600, 1300), (300, 650), (150, 325)]
        assert len(file.pages) == 1
        assert file.pages[0].photometric == tifffile.PHOTOMETRIC.PALETTE
        # as ElementTree is given it, so that its encoding counts as well
        root = ElementTree.fromstring(file.pages[0].tags["ImageDescription"].value.encode())
    written = tifffile.OmeXml(Creator=root.attrib["Creator"])
    written.addimage(
        "uint8",
        (600, 1300),
        (1, 1, 1, 600, 1300, 1),
        axes="YX",
        Name="classes",
        Description="0 other, 1 tumor, 2 fat & <skin>, 255 unread",
        PhysicalSizeX=0.4987,
        PhysicalSizeXUnit="µm",
        PhysicalSizeY=0.4987,
        PhysicalSizeYUnit="µm",
        Channel={"Name": "class"},
    )
    expected = ElementTree.fromstring(written.tostring())
    # an identifier, the schema's place and the light's path are optional
    expected.attrib = {"Creator": root.attrib["Creator"]}
    channel = expected.find(".//{*}Channel")
    channel.remove(channel[0])
    assert _plain(root) == _plain(expected)


def _plain(element):
    return element.tag, element.attrib, element.text, [_plain(child) for child in element]


@pytest.mark.parametrize("ome", [False, True])
def test_two_runs_write_the_same_bytes_and_leave_nothing_else(tmp_path, ome):
    files = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        write_pyramid(folder / "classes.tif", class_map_of(blobs(1300, 900)), ome)
        assert [path.name for path in folder.iterdir()] == ["classes.tif"]
        files.append((folder / "classes.tif").read_bytes())
    assert files[0] == files[1]


def test_tiles_of_one_class_are_as_true_as_others(tmp_path):
    random = np.random.default_rng(0)
    classes = random.choice(np.array([0, 1, 4, 255], np.uint8), (4, 5)).repeat(256, 0).repeat(256, 1)[:900, :1200]
    write_pyramid(tmp_path / "classes.tif", class_map_of(classes))
    levels = levels_of(tmp_path / "classes.tif")
    assert np.array_equal(levels[0], classes)
    assert np.array_equal(levels[1], classes[::2, ::2])
    assert np.array_equal(levels[2], classes[::4, ::4])


def test_what_does_not_fit_classic_tiff_is_big(tmp_path, monkeypatch):
    # some for the tables, and for what deflate may add
    assert pyramid.CLASSIC_BYTES * 1.01 < 2**32
    classes = blobs(600, 300)
    tiles = 3 * 2 + 2 * 1
    for limit, big in ((tiles * 256**2, False), (tiles * 256**2 - 1, True)):
        monkeypatch.setattr(pyramid, "CLASSIC_BYTES", limit)
        write_pyramid(tmp_path / "classes.tif", class_map_of(classes))
        with tifffile.TiffFile(tmp_path / "classes.tif") as file:
            assert file.is_bigtiff is big
        with openslide.OpenSlide(tmp_path / "classes.tif") as slide:
            assert slide.level_count == 2


def test_what_fails_when_the_file_is_closed_is_an_error(tmp_path, monkeypatch):
    """A full network drive may say so no earlier."""

    class Full(io.FileIO):
        def close(self):
            if not self.closed:
                super().close()
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pyramid, "open", lambda path, mode: Full(path, mode), raising=False)
    with pytest.raises(OSError, match="No space"):
        write_pyramid(tmp_path / "classes.tif", class_map_of(blobs(30, 20)))


def test_a_full_disk_is_an_error_wherever_it_strikes(tmp_path):
    """A limit on the size of files stands in for the disk."""
    path = tmp_path / "classes.tif"
    class_map = class_map_of(blobs(700, 600))
    write_pyramid(path, class_map)
    size = path.stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, size // 2, size - 5000, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(OSError):
                write_pyramid(path, class_map)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list(tmp_path.iterdir()) == [path]
