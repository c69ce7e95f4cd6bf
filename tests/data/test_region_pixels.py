"""Regions at the dataset's um/px."""

import json

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import Region
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.data.tile_manifest import MANIFEST, read_manifest
from lightmuseg.data.tiles import Cut, Tiling, write_dataset
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_codes, read_rgb
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import open_slide

TILE = 64


def region_of(folder, pixels, codes, mpp=0.3, name="one", patient="A"):
    image, mask = folder / f"{name}.png", folder / f"{name}_mask.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(codes).save(mask)
    return Region(name, patient, image, mask, 0, 0, mpp)


@pytest.fixture
def region(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((317, 211), Image.Resampling.BICUBIC))
    codes = rng.integers(0, 22, (18, 27), dtype=np.uint8).repeat(12, axis=0).repeat(12, axis=1)[:211, :317]
    return region_of(tmp_path, pixels, np.ascontiguousarray(codes))


@pytest.mark.parametrize("mpp", [0.2, 0.31, 0.36, 0.6])
def test_pixels_are_those_that_inference_sees(region, mpp):
    pixels, codes = region.read("bcss", mpp)
    assert codes.shape == pixels.shape[:2] == region.size(mpp)[::-1]
    with open_slide(region.image, mpp=region.mpp) as reader:
        view = ModelView(reader, mpp)
        assert (view.width, view.height) == region.size(mpp)
        corners = [(0, 0), (40, 30), (view.width - TILE, view.height - TILE)]
        for (x, y), seen in zip(corners, view.read_batch(corners, TILE)):
            # Pillow rounds a filter's weights to 8 bits by the box that it is given
            assert np.abs(pixels[y : y + TILE, x : x + TILE].astype(int) - seen).max() <= 2


@pytest.mark.parametrize("mpp", [0.2, 0.31, 0.36, 0.6])
def test_codes_are_those_of_the_nearest_pixel(region, mpp):
    _, codes = region.read("bcss", mpp)
    source, step = read_codes(region.mask), mpp / region.mpp
    for y, row in enumerate(codes):
        for x in range(0, len(row), 7):
            middle = min(int((y + 0.5) * step), 210), min(int((x + 0.5) * step), 316)
            assert row[x] == source[middle]


def test_fine_stripes_become_grey_and_no_other_stripes(tmp_path):
    """A downsampled picture is antialiased."""
    stripes = np.zeros((120, 120, 3), np.uint8)
    stripes[:, ::2] = 255
    region = region_of(tmp_path, stripes, np.ones((120, 120), np.uint8))
    pixels, _ = region.read("bcss", 0.9)
    assert np.abs(pixels[4:-4, 4:-4].astype(int) - 127).max() <= 8


def test_own_scale_is_left_as_it_is(region):
    for mpp in (None, 0.3, 0.30001):
        pixels, codes = region.read("bcss", mpp)
        assert np.array_equal(pixels, read_rgb(region.image))
        assert np.array_equal(codes, read_codes(region.mask))


def test_regions_of_several_scales_become_tiles_of_one(region, tmp_path):
    """A field of one colour a tissue: a square of 60 um has as many pixels, whatever its picture's um/px."""
    regions = []
    for number, mpp in enumerate((0.25, 0.3, 0.5)):
        side, start = round(120 / mpp), round(30 / mpp)
        codes = np.full((side, side), 21, np.uint8)
        codes[start : 3 * start, start : 3 * start] = 1
        pixels = np.where(codes[..., None] == 1, np.uint8(90), np.uint8(220)).repeat(3, axis=2)
        regions.append(region_of(tmp_path, pixels, codes, mpp, f"r{number}", f"p{number}"))
    cuts = [Cut(one, "train") for one in regions]
    manifest = write_dataset(cuts, tmp_path / "out", {}, Tiling(128, mpp=0.4))
    assert manifest["mpp"] == 0.4
    assert [(s["mpp"], s["picture_mpp"], s["width"]) for s in manifest["sources"]] == [
        (0.4, 0.25, 300), (0.4, 0.3, 300), (0.4, 0.5, 300),
    ]  # fmt: skip
    whole = np.zeros((3, 300, 300), np.uint8)
    for tile in load_tiles(tmp_path / "out", "train"):
        codes, pixels = read_codes(tile["label"]), read_rgb(tile["image"])
        assert (tile["region_width"], tile["region_height"]) == (300, 300)
        # a pixel's middle lies on one side of the edge, its grey is of both
        assert ((codes == 1) != (pixels[..., 0] < 155)).mean() < 0.01
        whole[int(tile["roi"][1]), tile["y"] : tile["y"] + 128, tile["x"] : tile["x"] + 128] = codes
    assert np.abs((whole == 1).sum(axis=(1, 2)) - 150**2).max() <= 2 * 150


def test_boxes_stay_apart_when_they_are_resampled(region, tmp_path):
    cuts = [Cut(region, "train", (0, 0, 159, 211)), Cut(region, "val", (159, 0, 158, 211))]
    manifest = write_dataset(cuts, tmp_path / "out", {}, Tiling(TILE, mpp=0.37))
    _, codes = region.read("bcss", 0.37)
    seen = {"train": np.zeros(codes.shape, bool), "val": np.zeros(codes.shape, bool)}
    for tile in manifest["tiles"]:
        seen[tile["split"]][tile["y"] : tile["y"] + TILE, tile["x"] : tile["x"] + TILE] = True
        written = read_codes(tmp_path / "out" / tile["mask"])
        assert np.array_equal(written, codes[tile["y"] : tile["y"] + TILE, tile["x"] : tile["x"] + TILE])
    assert (seen["train"] ^ seen["val"]).all()


def test_several_scales_are_refused_unless_one_is_given(bcss, tmp_path):
    for kind in ("rgbs", "masks"):
        path = sorted((bcss.folder / kind).iterdir())[0]
        path.rename(path.with_name(path.name.replace("0.2500", "0.5000")))
    with pytest.raises(InputError, match=r"MPP-0.5000.png: is of 0.5 um/px .* of 0.3; .*--tile_mpp 0.5"):
        prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE)
    manifest = prepare_bcss(bcss.folder, tmp_path / "out", tile_size=TILE, tile_mpp=0.5)
    assert (manifest["mpp"], {s["picture_mpp"] for s in manifest["sources"]}) == (0.5, {0.3, 0.5})
    assert {s["width"] for s in manifest["sources"] if s["picture_mpp"] == 0.5} == {300}


@pytest.mark.parametrize(("dataset", "mpp"), [("bcss", 0.3), ("bcss-wsss", 0.3), ("demo", 0.25)])
def test_manifest_of_before_says_what_is_assumed(bcss, tmp_path, caplog, dataset, mpp):
    output = tmp_path / "out"
    prepared = prepare_bcss(bcss.folder, output, tile_size=TILE)
    manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    del manifest["mpp"]
    for source in manifest["sources"]:
        del source["picture_mpp"]
        source["mpp"] = 0.25
    manifest["options"]["dataset"] = dataset
    (output / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for _ in range(2):
        assert read_manifest(output)["mpp"] == mpp
    (record,) = caplog.records
    assert record.message.startswith(f"{output / MANIFEST}: does not say its um/px, {mpp} is assumed")
    if dataset == "bcss":
        assert prepare_bcss(bcss.folder, output, tile_size=TILE)["sources"] == prepared["sources"]


@pytest.mark.parametrize("mpp", [0, -1, 1e300, None, "0.3", True])
def test_manifest_of_an_absurd_scale_is_refused(bcss, tmp_path, mpp):
    output = tmp_path / "out"
    prepare_bcss(bcss.folder, output, tile_size=TILE)
    manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    (output / MANIFEST).write_text(json.dumps(manifest | {"mpp": mpp}), encoding="utf-8")
    with pytest.raises(InputError, match=r"manifest.json: the manifest has the .*prepare the dataset again"):
        read_manifest(output)
