import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data import load_tiles, manifest_hash, warn_of_absent_classes
from lightmuseg.data import tile_manifest as manifest
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.data.stats import class_shares
from lightmuseg.errors import InputError


@pytest.fixture
def dataset(bcss, tmp_path):
    prepare_bcss(bcss.folder, tmp_path / "Kacheln ü", val=["TCGA-B2-BBBB"], tile_size=128)
    return tmp_path / "Kacheln ü"


def test_tiles_name_files_patient_and_region(bcss, dataset):
    (tile,) = load_tiles(dataset, "val")
    assert set(tile) == {"image", "label", "patient", "source", "roi", "x", "y", "region_width", "region_height"}
    assert tile["patient"] == "TCGA-B2-BBBB"
    assert np.array_equal(np.array(Image.open(tile["image"])), bcss.images[tile["roi"]])
    assert np.array_equal(np.array(Image.open(tile["label"])), bcss.masks[tile["roi"]])


def test_tiles_know_their_source_and_can_be_chosen_by_it(bcss, dataset):
    place = dataset / "manifest.json"
    content = json.loads(place.read_text())
    before = load_tiles(dataset, "train")
    assert {tile["source"] for tile in before} == {""}
    marked = before[0]["roi"]
    for entry in content["sources"]:
        entry |= {"source": "glass"} if entry["roi"] == marked else {}
    place.write_text(json.dumps(content))
    tiles = load_tiles(dataset, "train")
    assert {tile["roi"] for tile in tiles if tile["source"] == "glass"} == {marked}
    assert load_tiles(dataset, "train", "glass") == [tile for tile in tiles if tile["roi"] == marked]
    assert load_tiles(dataset, "train", "camelyon") == []
    content["sources"][0]["source"] = 5
    place.write_text(json.dumps(content))
    with pytest.raises(InputError, match="source 0 has the source '5'"):
        load_tiles(dataset, "train")


def test_tiles_say_where_they_lie_in_a_region_of_what_size(bcss, dataset):
    for tile in load_tiles(dataset, "train"):
        mask = bcss.masks[tile["roi"]]
        assert (tile["region_height"], tile["region_width"]) == mask.shape
        part = mask[tile["y"] : tile["y"] + 128, tile["x"] : tile["x"] + 128]
        written = np.array(Image.open(tile["label"]))
        assert np.array_equal(written[: part.shape[0], : part.shape[1]], part)
        assert all(type(tile[key]) is int for key in ("x", "y", "region_width", "region_height"))


def test_regions_can_be_put_together_again_from_their_tiles(bcss, dataset):
    regions = {}
    for tile in load_tiles(dataset, "train"):
        size = (tile["region_height"], tile["region_width"])
        region = regions.setdefault(tile["roi"], np.full(size, 99, np.uint8))
        there = region[tile["y"] : tile["y"] + 128, tile["x"] : tile["x"] + 128]
        there[:] = np.array(Image.open(tile["label"]))[: there.shape[0], : there.shape[1]]
    assert len(regions) == 5
    assert all(np.array_equal(region, bcss.masks[name]) for name, region in regions.items())


def test_dataset_without_tile_files_names_the_way_to_train_on_it(bcss, tmp_path):
    prepare_bcss(bcss.folder, tmp_path / "out", tile_size=128, tile_files="none")
    with pytest.raises(InputError, match=f"{tmp_path / 'out'}: holds no tile files.*train_wsi.json"):
        load_tiles(tmp_path / "out", "train")


def test_splits_together_are_all_files(dataset):
    found = [Path(tile["image"]) for split in ("train", "val") for tile in load_tiles(dataset, split)]
    assert sorted(found) == sorted((dataset / "images").iterdir())


def test_split_without_tiles_is_refused(dataset):
    with pytest.raises(InputError, match=f"{dataset}: has no tiles in the split 'test'"):
        load_tiles(dataset, "test")


def test_unknown_split_is_refused(dataset):
    with pytest.raises(InputError, match="'validation'"):
        load_tiles(dataset, "validation")


@pytest.mark.parametrize("use", [lambda folder: load_tiles(folder, "train"), manifest_hash])
def test_folder_without_manifest_is_refused(tmp_path, use):
    with pytest.raises(InputError, match=rf"{tmp_path}: no prepared tiles here.*lightmuseg prepare"):
        use(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"tiles": []}',
        '{"format": 99, "tiles": []}',
        '{"format": 1, "options": {}, "sources": [], "tiles": []}',
        '{"format": 1}',
        "\xff",
        "[" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_broken_manifest_is_refused(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=f"{path}.*prepare the dataset again"):
        load_tiles(tmp_path, "train")


def test_truncated_manifest_is_refused(dataset):
    path = dataset / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=str(path)):
        load_tiles(dataset, "train")


def test_too_large_a_manifest_is_refused_unread(dataset, monkeypatch):
    monkeypatch.setattr(manifest, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="manifest.json: is no file of at most"):
        load_tiles(dataset, "train")


def test_hash_is_that_of_the_manifest_file(dataset):
    path = dataset / "manifest.json"
    assert manifest_hash(dataset) == hashlib.sha256(path.read_bytes()).hexdigest()
    before = manifest_hash(dataset)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert manifest_hash(dataset) != before


@pytest.mark.parametrize("name", ["../images/a.png", "/etc/passwd", "images/../../a.png"])
def test_tile_outside_the_folder_is_refused(dataset, name):
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["tiles"][0]["image"] = name
    (dataset / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="outside its folder"):
        load_tiles(dataset, manifest["tiles"][0]["split"])


@pytest.mark.parametrize(
    ("place", "name", "value", "says"),
    [
        ("tiles", "split", 5, "tile 0 has the split '5'"),
        ("tiles", "x", "0", "tile 0 has the x '0'"),
        ("tiles", "x", -1, "in no region"),
        ("tiles", "y", True, "tile 0 has the y"),
        ("tiles", "roi", "another", "in no region"),
        ("tiles", "image", None, "tile 0 has the image"),
        ("tiles", "mask_bytes", 1e300, "tile 0 has the mask_bytes"),
        ("tiles", "code_pixels", {"99": 5}, "by code"),
        ("tiles", "code_pixels", {"1": -5}, "by code"),
        ("sources", "width", "wide", "source 0 has the width 'wide'"),
        ("sources", "mpp", None, "source 0 has the mpp 'None'"),
    ],
)
@pytest.mark.parametrize("use", [lambda folder: load_tiles(folder, "train"), class_shares, manifest_hash])
def test_entry_that_cannot_be_is_named(use, place, name, value, says, dataset):
    path = dataset / "manifest.json"
    content = json.loads(path.read_text())
    content[place][0][name] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{path}: .*{says}.*prepare the dataset again"):
        use(dataset)


@pytest.mark.parametrize("place", ["tiles", "sources", "options"])
def test_entries_that_are_no_objects_are_refused(place, dataset):
    path = dataset / "manifest.json"
    content = json.loads(path.read_text())
    content[place] = [1]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"{path}: .*prepare the dataset again"):
        load_tiles(dataset, "train")


def test_a_tile_that_was_changed_to_the_same_size_is_refused(dataset):
    for kind in ("image", "label"):
        path = Path(load_tiles(dataset, "val")[0][kind])
        whole = path.read_bytes()
        path.write_bytes(whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:])
        with pytest.raises(InputError, match=f"{path}: differs from what was written .*prepare the dataset again"):
            load_tiles(dataset, "val")
        path.write_bytes(whole)
    load_tiles(dataset, "val")


def test_a_manifest_without_check_sums_is_taken(dataset):
    path = dataset / "manifest.json"
    content = json.loads(path.read_text())
    for tile in content["tiles"]:
        assert tile.pop("image_crc32") == zlib.crc32((dataset / tile["image"]).read_bytes())
        assert tile.pop("mask_crc32") == zlib.crc32((dataset / tile["mask"]).read_bytes())
    path.write_text(json.dumps(content))
    assert load_tiles(dataset, "val")


def test_a_class_that_is_nowhere_is_named(dataset, caplog):
    path = dataset / "manifest.json"
    content = json.loads(path.read_text())
    for tile in content["tiles"]:
        tile["code_pixels"].pop("5", None)
    path.write_text(json.dumps(content))
    warn_of_absent_classes(dataset, ["train", "val"], {"here": [1]})
    assert caplog.messages == []
    warn_of_absent_classes(dataset, ["train", "val", "val"], {"here": [1, 5], "nowhere": [5]})
    assert caplog.messages == [
        f"{dataset}: no tile of the split 'train' holds the class nowhere (codes 5): the network cannot learn it.",
        f"{dataset}: no tile of the split 'val' holds the class nowhere (codes 5): its scores are nan where nothing is "
        "to be scored, and are left out of the means.",
    ]
    caplog.clear()
    # merged codes count as the other ones
    warn_of_absent_classes(dataset, ["train"], {"merged": [5]}, {"1": 5})
    assert caplog.messages == []
    warn_of_absent_classes(dataset, ["train"], {"gone": [1]}, {"1": 5})
    assert len(caplog.messages) == 1
