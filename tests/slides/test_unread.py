"""What cannot be read of a slide is neither glass nor tissue, from the file to every result."""

import csv
import json
import re

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter
from stand_in_networks import DarkAndRed

from lightmuseg.errors import InputError
from lightmuseg.slides import Options, segment_slides
from lightmuseg.wsi.readers import UnreadablePixels, open_slide
from lightmuseg.wsi.readers.cucim import CuCIMReader
from lightmuseg.wsi.readers.tile_checks import CheckedTiles

SIDE, TILE = 768, 256
GREYS = {(128,) * 3, (60,) * 3}


def segment(slide, output, **options):
    options = {"output_dir": output, "class_names": ("tumor", "stroma"), "overlap": 0.25} | options
    segment_slides([slide], DarkAndRed(), Options(**options), {})
    return output / slide.stem


def areas(folder):
    with (folder / "measurements.csv").open() as file:
        return {row["measure"]: float(row["value"]) for row in csv.DictReader(file) if row["unit"] == "mm2"}


def tissue(seed=0):
    """Of all of the picture but a margin of glass: pink, and as uneven as tissue."""
    rng = np.random.default_rng(seed)
    waves = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 12)
    pixels = np.array([190, 120, 180]) + 45 * (waves / waves.std())[..., None]
    pixels[:64] = pixels[:, :64] = 243
    return np.uint8(pixels.clip(0, 255))


@pytest.fixture
def slide(tmp_path):
    """A slide of two levels, at 1 um/px, and one with zeros in some of its tiles: (level, number)."""
    pixels = tissue()
    whole = tmp_path / "whole.tif"
    options = {"tile": (TILE, TILE), "photometric": "rgb", "compression": "adobe_deflate"}
    with tifffile.TiffWriter(whole) as file:
        file.write(pixels, resolution=(10_000, 10_000), resolutionunit="CENTIMETER", **options)
        half = np.asarray(Image.fromarray(pixels).reduce(2))
        file.write(half, subfiletype=1, **options)

    def damaged(name, *tiles):
        content = bytearray(whole.read_bytes())
        with tifffile.TiffFile(whole) as file:
            for level, number in tiles:
                page = file.pages[level]
                start, length = page.dataoffsets[number], page.databytecounts[number]
                content[start : start + length] = bytes([7]) * length
        path = tmp_path / f"{name}.tif"
        path.write_bytes(content)
        return path

    return damaged


def results_of(path, tmp_path, **options):
    folder = segment(path, tmp_path / "out", mpp=1.0, **options)
    return folder, tifffile.imread(folder / "classes.tif"), json.loads((folder / "run.json").read_text())


def test_damaged_tile_of_the_level_where_tissue_is_looked_for_takes_nothing_away(slide, tmp_path):
    _, expected, good = results_of(slide("good"), tmp_path)
    folder, classes, record = results_of(slide("coarse", (1, 0)), tmp_path)
    assert good["warnings"] == [warning for warning in record["warnings"] if not warning.startswith("level:")]
    assert np.array_equal(classes, expected)
    assert record["analysed_share"] == good["analysed_share"] > 0.5
    (warning,) = [warning for warning in record["warnings"] if warning.startswith("level:")]
    # 512 um square
    assert "level 1 0.26 mm2" in warning
    assert warning.removeprefix("level: ") in (folder / "report.html").read_text()


def test_what_no_level_gives_is_unread_everywhere(slide, tmp_path):
    good, expected, _ = results_of(slide("good"), tmp_path)
    # of level 0 the tile at 256, 256, of level 1 the one that has it too
    folder, classes, record = results_of(slide("lost", (0, 4), (1, 0)), tmp_path)
    lost = np.zeros_like(classes, bool)
    lost[128:256, 128:256] = True
    assert np.array_equal(classes == 255, lost)
    # a network of single blocks, which sees nothing of what lies beside them
    assert np.array_equal(classes[~lost], expected[~lost])
    measured = areas(folder)
    assert measured["unread_area"] == pytest.approx(0.256**2)
    whole = areas(good)["tissue_area"]
    # beside what is unread a few pixels of glass are not told from tissue
    assert measured["tissue_area"] == pytest.approx(whole - 0.256**2, abs=1e-4)
    assert record["analysed_share"] == pytest.approx(measured["analysed_area"] / 0.768**2, rel=0.05)
    assert record["unread_tiles"] > 0
    (place,) = record["unread_places"]
    assert "256, 256" in place
    for name in ("overlay.png", "uncertainty.png"):
        picture = np.asarray(Image.open(folder / name).convert("RGB"))
        assert {tuple(map(int, colour)) for colour in picture[257:511, 257:511].reshape(-1, 3)} == GREYS
        assert len({tuple(map(int, colour)) for colour in picture[100:250, 100:250].reshape(-1, 3)} - GREYS) > 3
    assert "Could not be read" in (folder / "report.html").read_text()
    regions = json.loads((folder / "regions.geojson").read_text())["features"]
    middle = shapely.Point(384, 384)
    (name,) = [
        region["properties"]["classification"]["name"]
        for region in regions
        if shapely.geometry.shape(region["geometry"]).contains(middle)
    ]
    assert name == "unread"


def test_unread_without_a_tissue_mask_and_in_a_region(slide, tmp_path):
    path = slide("lost", (0, 4))
    _, classes, _ = results_of(path, tmp_path, tissue_mask=False)
    assert (classes == 255).sum() == 128**2
    _, classes, record = results_of(path, tmp_path / "2", tissue_mask=False, region="300,100,100,300")
    assert (classes == 255).sum() == 50 * 72
    assert record["analysed_share"] == pytest.approx(100 * 156 / 768**2, rel=0.02)


@pytest.mark.parametrize("options", [{}, {"tissue_mask": False}, {"region": "300,300,100,100"}])
def test_slide_of_which_nothing_wanted_can_be_read_fails(slide, tmp_path, options):
    tiles = [(0, number) for number in range(9)] + [(1, number) for number in range(4)]
    path = slide("dead", *(tiles if "region" not in options else [(0, 4), (1, 0)]))
    with pytest.raises(InputError):
        results_of(path, tmp_path, **options)
    (row,) = csv.DictReader((tmp_path / "out" / "report.csv").open())
    assert row["status"] == "failed"
    assert re.match(rf"{re.escape(str(path))}: nothing .*pixel \d+, \d+ cannot be decoded", row["message"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.csv"]


def test_damaged_slide_is_decoded_once_and_not_over_and_over(data, tmp_path, monkeypatch):
    """Boxes and tiles that are asked for, of 25 tiles in three levels; quarters of quarters were thousands."""
    decoded, checked = [], []
    one_by_one, check = CuCIMReader._decoded, CheckedTiles._fault
    monkeypatch.setattr(CuCIMReader, "_decoded", lambda self, *box: decoded.append(box) or one_by_one(self, *box))
    monkeypatch.setattr(CheckedTiles, "_fault", lambda self, *tile: checked.append(tile) or check(self, *tile))
    slide = data / "slide_cases" / "all_damaged.tif"
    with pytest.raises(InputError):
        segment(slide, tmp_path)
    with tifffile.TiffFile(slide) as file:
        tiles = sum(len(page.dataoffsets) for page in file.pages)
        levels = len(file.pages)
    assert len(decoded) <= tiles + levels
    assert len(checked) <= tiles + levels


def test_real_slide_with_a_damaged_tile_of_a_coarse_level_has_the_same_map(data, tmp_path):
    folder = data / "slide_cases" / "damaged"
    good, zeroed = (segment(folder / f"coarse-tile-{name}.tif", tmp_path) for name in ("good", "zeroed"))
    assert (good / "classes.tif").read_bytes() == (zeroed / "classes.tif").read_bytes()
    assert areas(good) == areas(zeroed)
    (warning,) = [w for w in json.loads((zeroed / "run.json").read_text())["warnings"] if w.startswith("level:")]
    assert "level 1 " in warning


@pytest.mark.parametrize(
    ("name", "mpp", "box"),
    [("tile-zeroed-is-glass.svs", 0.25, (0, 0, 240, 240)), ("dicom-frame-cut.dcm", 0.25, (0, 500, 500, 1000))],
)
def test_real_slide_is_unread_where_its_tile_is_damaged(data, tmp_path, name, mpp, box):
    folder = segment(data / "slide_cases" / "damaged" / name, tmp_path, slide_mpp=mpp)
    classes = tifffile.imread(folder / "classes.tif")
    left, upper, right, lower = (side // 2 for side in box)
    lost = np.zeros_like(classes, bool)
    lost[upper:lower, left:right] = True
    assert np.array_equal(classes == 255, lost)
    record = json.loads((folder / "run.json").read_text())
    assert record["unread_tiles"] > 0
    assert len(record["unread_places"]) == 1
    assert len(set(np.unique(classes))) == 4


@pytest.mark.parametrize("backend", ["cucim", "tifffile", "openslide"])
def test_every_reader_gives_the_tiles_around_a_damaged_one(slide, backend):
    with open_slide(slide("good"), backend) as reader:
        expected = reader.read(0, 200, -20, 400, 500)
        assert reader.read_partly(0, 200, -20, 400, 500)[1:] == (None, ())
    with open_slide(slide("lost", (0, 4)), backend) as reader:
        for _ in range(2):
            pixels, unread, (reason,) = reader.read_partly(0, 200, -20, 400, 500)
            lost = np.zeros((500, 400), bool)
            lost[276:, 56:312] = True
            assert np.array_equal(unread, lost)
            assert np.array_equal(pixels, np.where(lost[..., None], 255, expected))
            assert "256, 256" in reason
            with pytest.raises(UnreadablePixels, match="256, 256"):
                reader.read(0, 500, 500, 20, 20)
