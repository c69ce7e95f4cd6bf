"""Whatever is wrong with the data or the disk shows in one line before training starts."""

import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.errors import InputError

TRAIN = ("python", "-m", "monai.bundle", "run", "training", "--config_file", "bundle/configs/train.json")
SMALL = ("--tile_size", 64, "--encoder_weights", "None", "--max_epochs", 1)


def only_error(stderr):
    """The one line of a fault; fails where there is a traceback or a training has started."""
    assert "Traceback" not in stderr
    assert "tile/s" not in stderr
    line = stderr.strip().splitlines()[-1]
    assert line.startswith("lightmuseg: error: ")
    return line


@pytest.fixture
def copied(source, tmp_path):
    """A copy of the source folder, to be spoilt, and its first image."""
    folder = shutil.copytree(source, tmp_path / "copie é")
    return folder, sorted((folder / "rgbs").iterdir())[0]


def save_deep(path):
    import tifffile

    tifffile.imwrite(path.with_suffix(".tif"), np.zeros((100, 150, 3), np.uint16), photometric="rgb")
    path.unlink()


SPOILS = {
    "no mask": (lambda image, mask: mask.unlink(), "has no mask in"),
    "sizes differ": (lambda image, mask: Image.new("L", (150, 99), 1).save(mask), "is 150 x 99 pixels, its image"),
    "unknown code": (lambda image, mask: Image.new("L", (150, 100), 22).save(mask), "unknown mask code 22"),
    "truncated image": (lambda image, mask: os.truncate(image, image.stat().st_size // 2), "cannot be read whole"),
    "truncated mask": (lambda image, mask: os.truncate(mask, 60), "cannot be read"),
    "empty file": (lambda image, mask: os.truncate(image, 0), "not an image file"),
    "16-bit": (lambda image, mask: save_deep(image), "16-bit"),
    "transparent": (lambda image, mask: Image.new("RGBA", (150, 100), (9, 9, 9, 0)).save(image), "transparent"),
    "grey": (lambda image, mask: Image.new("L", (150, 100)).save(image), "8-bit grey, not 8-bit RGB"),
    "colour mask": (lambda image, mask: Image.new("RGB", (150, 100)).save(mask), "one channel of class codes"),
}


@pytest.mark.parametrize("spoil", SPOILS)
def test_spoilt_source_is_named_and_nothing_is_left(spoil, copied, tmp_path):
    folder, image = copied
    change, message = SPOILS[spoil]
    change(image, folder / "masks" / image.name)
    output = tmp_path / "out"
    with pytest.raises(InputError) as error:
        prepare_bcss(folder, output, tile_size=64)
    line = str(error.value)
    assert image.stem in line
    # Pillow cannot tell some 16-bit TIFFs from other files
    assert message in line or (spoil == "16-bit" and "not an image file" in line)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_palette_image_and_opaque_rgba_give_the_same_tiles(source, copied, tmp_path):
    folder, image = copied
    picture = Image.open(image).quantize(200)
    picture.save(image)
    expected = np.asarray(picture.convert("RGB"))[:64, :64]
    second = sorted((folder / "rgbs").iterdir())[1]
    Image.open(second).convert("RGBA").save(second)
    output = tmp_path / "out"
    prepare_bcss(folder, output, tile_size=64)
    assert np.array_equal(np.asarray(Image.open(output / "images" / f"{image.stem}_x0_y0.png")), expected)
    original = np.asarray(Image.open(source / "rgbs" / second.name))[:64, :64]
    assert np.array_equal(np.asarray(Image.open(output / "images" / f"{second.stem}_x0_y0.png")), original)


def test_no_data(run, tmp_path):
    status, _, stderr = run(*TRAIN, *SMALL, "--dataset_dir", tmp_path, "--output_dir", tmp_path / "out")
    assert status == 1
    assert f"{tmp_path}: no prepared tiles here" in only_error(stderr)


def test_damaged_tile(dataset, run, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "dataset")
    tile = sorted((copy / "images").iterdir())[0]
    os.truncate(tile, tile.stat().st_size - 10)
    for split in ("train", "val"):
        (copy / "manifest.json").write_text(
            (copy / "manifest.json").read_text().replace('"split": "test"', f'"split": "{split}"')
        )
    status, _, stderr = run(*TRAIN, *SMALL, "--dataset_dir", copy, "--output_dir", tmp_path / "out")
    assert status == 1
    assert tile.name in only_error(stderr)


def test_split_without_tiles(dataset, run, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "dataset")
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"split": "val"', '"split": "test"'))
    status, _, stderr = run(*TRAIN, *SMALL, "--dataset_dir", copy, "--output_dir", tmp_path / "out")
    assert status == 1
    assert "has no tiles in the split 'val'" in only_error(stderr)


def test_output_below_a_file(dataset, run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, stderr = run(*TRAIN, *SMALL, "--dataset_dir", dataset, "--output_dir", tmp_path / "file" / "out")
    assert status == 1
    assert f"{tmp_path / 'file' / 'out'}: cannot write" in only_error(stderr)


@pytest.fixture(params=["full", "read-only"])
def bad_disk(request, tmp_path):
    """A mounted disk of 1 MB, or one that takes nothing."""
    disk = tmp_path / request.param
    disk.mkdir()
    options = "size=1m" if request.param == "full" else "size=1m,ro"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("cannot mount a disk here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_or_read_only_output_disk(bad_disk, dataset, run):
    status, _, stderr = run(*TRAIN, *SMALL, "--dataset_dir", dataset, "--output_dir", bad_disk / "out")
    assert status == 1
    assert f"{bad_disk / 'out'}: cannot write" in only_error(stderr)
    assert [path for path in bad_disk.rglob("*") if path.is_file()] == []


def test_preparing_onto_a_bad_disk(bad_disk, source, run):
    command = ("python", "-m", "lightmuseg.cli", "prepare", "bcss", "--source", source, "--output", bad_disk / "tiles")
    # the tiles alone would fit on 1 MB: fill it
    if bad_disk.name == "full":
        (bad_disk / "filler").write_bytes(bytes(1_000_000))
    status, _, stderr = run(*command, "--tile_size", 64)
    assert status == 1
    assert "cannot write" in stderr.strip().splitlines()[-1]
    assert not (bad_disk / "tiles").exists()
