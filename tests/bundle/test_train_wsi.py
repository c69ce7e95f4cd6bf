"""The bundle trains and evaluates straight from slides, run as a user runs it."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from lightmuseg.data.tile_manifest import MANIFEST

BUNDLE = ("python", "-m", "monai.bundle", "run")
FAST = ("--tile_size", 64, "--batch_size", 2, "--num_workers", 0, "--encoder_weights", "None")


@pytest.fixture(scope="module")
def place(source, dataset, tmp_path_factory):
    """Slides at 0.30 um/px that hold the regions, and the dataset's manifest without its tile files."""
    folder = tmp_path_factory.mktemp("slides é")
    for path in (source / "rgbs").iterdir():
        region = np.asarray(Image.open(path))
        x0 = int(path.stem.partition("_xmin")[2].partition("_")[0])
        slide = np.full((256, 256, 3), 240, np.uint8)
        slide[7 : 7 + region.shape[0], x0 : x0 + region.shape[1]] = region
        name = path.stem.partition("_")[0].replace("-DX1", "-01Z-00-DX1.svs.tif")
        scale = {"resolution": (10_000 / 0.30,) * 2, "resolutionunit": "CENTIMETER"}
        options = {"tile": (128, 128), "photometric": "rgb", "compression": "adobe_deflate", **scale}
        tifffile.imwrite(folder / name, slide, **options)
    manifest = json.loads((dataset / MANIFEST).read_text())
    manifest["tiles"] = [
        {key: value for key, value in tile.items() if not key.startswith(("image", "mask"))}
        for tile in manifest["tiles"]
    ]
    (folder / "dataset").mkdir()
    (folder / "dataset" / MANIFEST).write_text(json.dumps(manifest))
    folders = ("--dataset_dir", folder / "dataset", "--slides_dir", folder, "--masks_dir", source / "masks")
    return SimpleNamespace(folder=folder, options=folders)


def configs(*names):
    return "--config_file", str([f"bundle/configs/{name}.json" for name in names])


@pytest.fixture(scope="module")
def trained(place, run, tmp_path_factory):
    """The output of one epoch from slides, none of them in tile files."""
    output = tmp_path_factory.mktemp("wsi") / "out"
    status, _, stderr = run(
        *BUNDLE, "training", *configs("train", "train_wsi"), *place.options, "--output_dir", output,
        *FAST, "--max_epochs", 1,
    )  # fmt: skip
    assert status == 0, stderr
    return output


def test_training_from_slides_equals_training_from_tiles(trained, dataset, run, tmp_path):
    status, _, stderr = run(
        *BUNDLE, "training", *configs("train"), "--dataset_dir", dataset, "--output_dir", tmp_path / "tiles",
        *FAST, "--max_epochs", 1,
    )  # fmt: skip
    assert status == 0, stderr
    ours, theirs = (torch.load(folder / "model.pt", weights_only=True) for folder in (trained, tmp_path / "tiles"))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert torch.equal(value, ours[key]), key


def test_run_remembers_how_slides_were_read(trained):
    options = json.loads((trained / "run.json").read_text())["options"]
    assert {key: options[key] for key in ("backend", "slide_mpp", "mpp")} == {
        "backend": "auto", "slide_mpp": None, "mpp": 0.3,
    }  # fmt: skip


def test_evaluation_from_slides_names_each_tile(trained, place, run, tmp_path):
    output = tmp_path / "scores"
    status, _, stderr = run(
        *BUNDLE, *configs("train", "train_wsi", "evaluate"), *place.options, "--output_dir", output,
        "--backend", "openslide", "--checkpoint", trained / "model.pt", *FAST,
    )  # fmt: skip
    assert status == 0, stderr
    with (output / "val_mean_dice_raw.csv").open(encoding="utf-8") as file:
        names = [row["filename"] for row in csv.DictReader(file)]
    tiles = json.loads((place.folder / "dataset" / MANIFEST).read_text())["tiles"]
    test_tiles = [tile for tile in tiles if tile["split"] == "test"]
    assert names == [f"{tile['roi']}_x{tile['x']}_y{tile['y']}" for tile in test_tiles]


def test_unknown_backend_is_one_line(place, run, tmp_path):
    status, _, stderr = run(
        *BUNDLE, "training", *configs("train", "train_wsi"), *place.options, "--output_dir", tmp_path / "out",
        *FAST, "--backend", "vips",
    )  # fmt: skip
    assert status == 1
    assert stderr.splitlines()[-1] == (
        "lightmuseg: error: backend='vips' is not known; one of auto, cucim, openslide, tifffile, dicom, image."
    )
    assert "Traceback" not in stderr


def test_slide_that_breaks_in_training_is_one_line(place, run, tmp_path):
    """Its tags are whole, so the check before training passes; its pixels are not there."""
    shutil.copytree(place.folder, tmp_path / "copy")
    for path in (tmp_path / "copy").glob("*.tif"):
        with tifffile.TiffFile(path) as file:
            offset, count = file.pages[0].dataoffsets[0], sum(file.pages[0].databytecounts)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(bytes(count))
    status, _, stderr = run(
        *BUNDLE, "training", *configs("train", "train_wsi"), *place.options, "--slides_dir", tmp_path / "copy",
        "--output_dir", tmp_path / "out", *FAST, "--num_workers", 2, "--backend", "openslide",
    )  # fmt: skip
    assert status == 1
    assert "cannot be decoded" in stderr.splitlines()[-1]
    assert stderr.splitlines()[-1].startswith("lightmuseg: error:")
