import json
import re
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data.check import check_dataset
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.errors import InputError

TILE = 128


class Prepared(SimpleNamespace):
    """A dataset, and ways to spoil it that sizes of files do not show."""

    def check(self):
        return check_dataset(self.source, self.output)

    def edit(self, change):
        path = self.output / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        change(manifest)
        path.write_text(json.dumps(manifest), encoding="utf-8")

    def spoil_tile(self, kind, number=3):
        """Change one pixel of a tile, and let the manifest say the new size; the file's path."""
        tile = self.manifest["tiles"][number]
        path = self.output / tile[kind]
        pixels = np.array(Image.open(path))
        pixels[TILE - 1, TILE - 2] ^= 1
        Image.fromarray(pixels).save(path)
        written = path.read_bytes()
        about = {f"{kind}_bytes": len(written), f"{kind}_crc32": zlib.crc32(written)}
        self.edit(lambda manifest: manifest["tiles"][number].update(about))
        return path


def made(bcss, output, **options):
    manifest = prepare_bcss(bcss.folder, output, tile_size=TILE, overlap=0.25, **options)
    return Prepared(source=bcss.folder, output=output, manifest=manifest)


@pytest.fixture
def prepared(bcss, tmp_path):
    return made(bcss, tmp_path / "Kacheln ü")


def refused(*words):
    return pytest.raises(InputError, match=".*".join(re.escape(str(word)) for word in words))


def test_good_dataset_is_proved_with_its_numbers(prepared):
    number = len(prepared.manifest["tiles"])
    assert prepared.check() == (
        f"{prepared.output}: {number} tiles equal their crops of 6 regions, 12 source files have the recorded "
        "SHA-256, 5 patients, none in more than one split"
    )


def test_left_out_tiles_are_no_fault(bcss, tmp_path):
    few = made(bcss, tmp_path / "few", min_annotated=0.9)
    regions = {tile["roi"] for tile in few.manifest["tiles"]}
    assert 0 < len(regions) < 6
    assert f"{len(few.manifest['tiles'])} tiles equal" in few.check()


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_changed_tile_is_named(prepared, kind):
    path = prepared.spoil_tile(kind)
    tile = prepared.manifest["tiles"][3]
    with refused(path, "differs from", tile["roi"], f"x {tile['x']}, y {tile['y']}"):
        prepared.check()


def test_changed_filling_is_named(prepared):
    number = next(n for n, tile in enumerate(prepared.manifest["tiles"]) if "D4-DDDD" in tile["roi"])
    with refused(prepared.spoil_tile("image", number), "differs from"):
        prepared.check()


def test_first_offender_is_named(prepared):
    prepared.spoil_tile("image", 5)
    first = prepared.spoil_tile("image", 2)
    with refused(first):
        prepared.check()


def test_missing_tile_is_named(prepared):
    path = prepared.output / prepared.manifest["tiles"][4]["image"]
    path.unlink()
    with refused(path, "is missing"):
        prepared.check()


@pytest.mark.parametrize("kind", ["rgbs", "masks"])
def test_changed_source_is_named(prepared, kind):
    path = sorted((prepared.source / kind).iterdir())[2]
    Image.open(path).save(path, compress_level=1)
    with refused(path, "is not the file that"):
        prepared.check()


def test_region_that_the_dataset_does_not_know_is_named(prepared):
    name = "TCGA-F6-FFFF-DX1_xmin0_ymin0_MPP-0.2500.png"
    Image.new("RGB", (200, 200)).save(prepared.source / "rgbs" / name)
    Image.new("L", (200, 200)).save(prepared.source / "masks" / name)
    with refused(prepared.source / "rgbs" / name, "is not the file that"):
        prepared.check()


def test_patient_in_two_splits_is_named(prepared):
    tiles = prepared.manifest["tiles"]
    number = next(n for n, tile in enumerate(tiles) if tile["patient"] == "TCGA-A1-AAAA")
    other = {"train": "val", "val": "test", "test": "train"}[tiles[number]["split"]]
    prepared.edit(lambda manifest: manifest["tiles"][number].update(split=other))
    with refused(prepared.output, "TCGA-A1-AAAA", "splits"):
        prepared.check()


def test_tile_of_another_patient_is_named(prepared):
    prepared.edit(lambda manifest: [tile.update(patient="TCGA-B2-BBBB") for tile in manifest["tiles"][:4]])
    with refused(prepared.output, "TCGA-B2-BBBB", prepared.manifest["tiles"][0]["roi"]):
        prepared.check()


def test_wrong_place_is_found(prepared):
    prepared.edit(lambda manifest: manifest["tiles"][1].update(x=manifest["tiles"][1]["x"] + 1))
    with refused(prepared.manifest["tiles"][1]["roi"]):
        prepared.check()


def test_wrong_size_of_a_region_is_found(prepared):
    prepared.edit(lambda manifest: manifest["sources"][0].update(width=299))
    with refused(prepared.output, "another size"):
        prepared.check()


def test_wrong_pixel_counts_are_found_without_tile_files(bcss, tmp_path):
    places = made(bcss, tmp_path / "places", tile_files="none")
    assert "have the pixel counts of their crops of 6 regions, 6 source files" in places.check()
    places.edit(lambda manifest: manifest["tiles"][6]["code_pixels"].update({"21": 1}))
    with refused(places.output, "counts other pixels", places.manifest["tiles"][6]["roi"]):
        places.check()


@pytest.mark.parametrize("tile_mpp", [0.25, 0.5])
def test_resampled_tiles_are_proved_and_a_changed_one_is_named(bcss, tmp_path, tile_mpp):
    resampled = made(bcss, tmp_path / "resampled", mpp=0.4, tile_mpp=tile_mpp)
    assert f"{len(resampled.manifest['tiles'])} tiles equal their crops" in resampled.check()
    with refused(resampled.spoil_tile("mask"), "differs from"):
        resampled.check()


def test_masks_of_another_coding_are_held_against_their_codes(bcss, tmp_path):
    for path in (bcss.folder / "masks").iterdir():
        Image.fromarray(np.where(np.array(Image.open(path)) > 9, 255, 0).astype(np.uint8)).save(path)
    tumor = made(bcss, tmp_path / "tumor", mask_coding="tumor")
    assert "tiles equal" in tumor.check()
