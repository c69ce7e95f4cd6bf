"""Labels become tiles at the um/px of the model's card, whatever the slide's is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data.tile_manifest import load_tiles
from lightmuseg.label.training import LabelledImage, prepare
from lightmuseg.wsi.images import read_codes, read_rgb

MODEL_MPP, TILE = 0.4, 128
# of the field and of the square that is drawn in it: left, upper, right, lower
FIELD_UM, TUMOR_UM = 160, (40, 24, 120, 88)


def write_field(folder, mpp, tiled):
    """A picture, or a slide that states its um/px, of a dark square on light ground; and its annotation."""
    side = round(FIELD_UM / mpp)
    left, upper, right, lower = (round(edge / mpp) for edge in TUMOR_UM)
    pixels = np.full((side, side, 3), 220, np.uint8)
    pixels[upper:lower, left:right] = 90
    path = folder / ("slide.tif" if tiled else "picture.png")
    if tiled:
        tifffile = pytest.importorskip("tifffile")
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "adobe_deflate"}
        tifffile.imwrite(path, pixels, resolution=(10_000 / mpp,) * 2, resolutionunit="CENTIMETER", **options)
    else:
        Image.fromarray(pixels).save(path)
    boxes = {"Region*": (0, 0, side, side), "tumor": (left, upper, right, lower)}
    label = folder / "label.geojson"
    label.write_text(json.dumps([feature(name, *box) for name, box in boxes.items()]))
    return LabelledImage("field", path, label, {})


def feature(name, left, upper, right, lower):
    ring = [[left, upper], [right, upper], [right, lower], [left, lower], [left, upper]]
    return {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"classification": {"name": name}},
    }  # fmt: skip


@pytest.mark.parametrize(("mpp", "tiled"), [(0.25, True), (0.4, True), (0.5, True), (MODEL_MPP, False)])
def test_tiles_are_at_the_models_scale(tmp_path, mpp, tiled):
    codes = {"tumor": [1]}
    network = SimpleNamespace(mpp=MODEL_MPP, tile_size=TILE, codes=codes, label_codes=codes, class_names=("tumor",))
    manifest = prepare([write_field(tmp_path, mpp, tiled)], network, tmp_path / "work", 0.3)
    assert manifest["mpp"] == MODEL_MPP
    (source,) = manifest["sources"]
    assert (source["width"], source["height"], source["mpp"]) == (400, 400, MODEL_MPP)
    whole = np.zeros((400, 400), np.uint8)
    dataset = tmp_path / "work" / "dataset"
    for tile in [*load_tiles(dataset, "train"), *load_tiles(dataset, "val")]:
        codes, pixels = read_codes(tile["label"]), read_rgb(tile["image"])
        assert ((codes == 1) != (pixels[..., 0] < 155)).mean() < 0.02
        place = whole[tile["y"] : tile["y"] + TILE, tile["x"] : tile["x"] + TILE]
        place[:] = codes[: place.shape[0], : place.shape[1]]
    ys, xs = np.nonzero(whole == 1)
    edges = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    assert np.abs(edges - np.array(TUMOR_UM) / MODEL_MPP).max() <= 1
