"""Versions of weights, fine-tuning's held-out share, and patches."""

import hashlib
import json
from collections import Counter, OrderedDict

import numpy as np
import pytest
import shapely
import torch
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.label.bundle_network import BundleNetwork
from lightmuseg.label.model_versions import ModelStore, VersionedModel
from lightmuseg.label.patches import fitted, next_patch, score_patches
from lightmuseg.label.prediction import Box, predicted
from lightmuseg.label.training import LabelledImage, cells, prepare
from lightmuseg.models.packaged import NAMED
from lightmuseg.networks import LightMuSeg
from lightmuseg.provenance import sha256_of


@pytest.fixture
def first(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "first.pt")
    return tmp_path / "first.pt"


def test_better_weights_come_into_use_and_the_old_ones_come_back(first, tmp_path):
    store, other = ModelStore(tmp_path / "models", first), ModelStore(tmp_path / "models", first)
    assert store.in_use() == 0
    torch.save({"a": torch.ones(1)}, tmp_path / "second.pt")
    assert store.add(tmp_path / "second.pt", {"dice": 0.5}, use=False) == 1
    assert (store.in_use(), other.in_use()) == (0, 0)
    assert store.add(tmp_path / "second.pt", {"dice": 0.7}, use=True) == 2
    assert (store.in_use(), other.in_use()) == (2, 2)
    assert [(row["version"], row["in_use"], row.get("dice")) for row in other.facts()] == [
        (0, False, None), (1, False, 0.5), (2, True, 0.7),
    ]  # fmt: skip
    other.use(0)
    assert store.path(store.in_use()).read_bytes() == first.read_bytes()
    assert store.facts()[0]["sha256"] == hashlib.sha256(first.read_bytes()).hexdigest()
    with pytest.raises(InputError, match="version 7: is not there; one of 0, 1, 2"):
        store.use(7)


def test_file_that_is_gone_is_not_in_use(first, tmp_path):
    store = ModelStore(tmp_path / "models", first)
    store.add(first, {}, use=True)
    store.path(1).unlink()
    assert store.in_use() == 0


@pytest.mark.parametrize("text", ['{"version": ', "[1]", '{"version": 1', "\0"])
def test_damaged_files_of_a_store_are_named(text, first, tmp_path):
    store = ModelStore(tmp_path / "models", first)
    store.in_use()
    for name in ("in_use.json", "v0000.json"):
        (tmp_path / "models" / name).write_text(text)
        with pytest.raises(InputError, match=f"{name}: .*delete it"):
            store.facts()
        (tmp_path / "models" / name).unlink()


@pytest.mark.parametrize("version", [99, -1, "../v", [0], None, 0.5])
def test_version_that_is_not_there_is_not_in_use(version, first, tmp_path):
    store = ModelStore(tmp_path / "models", first)
    store.in_use()
    (tmp_path / "models" / "in_use.json").write_text(json.dumps({"version": version}))
    assert store.in_use() == 0


def test_what_is_no_weights_is_not_kept(first, tmp_path):
    store = ModelStore(tmp_path / "models", first)
    (tmp_path / "bad.pt").write_bytes(b"x")
    with pytest.raises(InputError, match=r"bad\.pt"):
        store.add(tmp_path / "bad.pt", {}, use=True)
    assert store.numbers() == [0]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (1023, 1100), (5000, 700), (300, 2000)])
def test_cells_cover_a_rectangle_once_and_are_no_smaller_than_a_tile(width, height):
    counted = np.zeros((height, width), int)
    for x, y, w, h in cells(width, height, 512):
        counted[y : y + h, x : x + w] += 1
        assert w >= min(512, width)
        assert h >= min(512, height)
    assert (counted == 1).all()


@pytest.fixture(scope="module")
def network(root):
    return BundleNetwork(root / "bundle", root / "bundle" / "models" / "model.pt")


def labelled(folder, names):
    """Pictures of two tiles side by side; the left one of each second picture has tumor."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(names):
        pixels = rng.integers(0, 255, (16, 32, 3), np.uint8).repeat(32, axis=0).repeat(32, axis=1)
        Image.fromarray(pixels).save(folder / f"{name}.png")
        indices = np.zeros((512, 1024), np.uint8)
        indices[100:200, 100:200] = number % 2
        Image.fromarray(indices).save(folder / f"{name}_label.png")
    return [LabelledImage(name, folder / f"{name}.png", folder / f"{name}_label.png", {}) for name in names]


def tiles_of(manifest):
    return {(t["patient"], t["x"], t["y"]): (t["split"], "1" in t["code_pixels"]) for t in manifest["tiles"]}


def test_held_out_tiles_have_every_kind_and_stay_held_out(network, tmp_path):
    images = labelled(tmp_path, [f"image {n}" for n in range(10)])
    found = tiles_of(prepare(images, network, tmp_path / "a", 0.2))
    assert len(found) == 20
    held_out = {tile: with_class for tile, (split, with_class) in found.items() if split == "val"}
    assert 2 <= len(held_out) <= 9
    assert set(held_out.values()) == {False, True}
    again = tiles_of(prepare(images[::-1], network, tmp_path / "b", 0.2))
    assert again == found
    later = tiles_of(prepare(labelled(tmp_path, [f"image {n}" for n in range(14)]), network, tmp_path / "c", 0.2))
    assert {tile: later[tile] for tile in found} == found
    assert sum(split == "val" for split, _ in later.values()) > len(held_out)


def test_masks_of_the_dataset_are_the_labels(network, tmp_path):
    images = labelled(tmp_path, ["a", "b", "c", "d"])
    manifest = prepare(images, network, tmp_path / "work", 0.5)
    for tile in manifest["tiles"]:
        pixels = np.asarray(Image.open(tmp_path / "work" / "dataset" / tile["image"]))
        whole = np.asarray(Image.open(tmp_path / f"{tile['patient']}.png"))
        np.testing.assert_array_equal(pixels, whole[tile["y"] :, tile["x"] :][:512, :512])
        codes = np.asarray(Image.open(tmp_path / "work" / "dataset" / tile["mask"]))
        indices = np.asarray(Image.open(tmp_path / f"{tile['patient']}_label.png"))[:, tile["x"] :][:, :512]
        np.testing.assert_array_equal(codes == 1, indices == 1)


def test_one_patch_is_not_enough(network, tmp_path):
    Image.fromarray(np.zeros((512, 512, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.ones((512, 512), np.uint8)).save(tmp_path / "a_label.png")
    one = [LabelledImage("a", tmp_path / "a.png", tmp_path / "a_label.png", {})]
    with pytest.raises(InputError, match="1 annotated patches: two with tumor are needed"):
        prepare(one, network, tmp_path / "work", 0.2)


def test_models_of_the_package_are_each_in_use_in_versions_of_their_own(root, tmp_path):
    bundle, codes = root / "bundle", {"tumor": [1], "stroma": [2]}
    stores = {name: ModelStore(tmp_path / name, bundle / "models" / file) for name, file in NAMED.items()}
    models = {name: VersionedModel(bundle, store, label_codes=codes) for name, store in stores.items()}
    before = {name: model.network() for name, model in models.items()}
    assert [len(network.class_names) for network in before.values()] == [1, 4]
    assert [network.variants for network in before.values()] == [(), ("multiclass",)]
    loss = before["tissue"].training().get("loss")["loss"]["_target_"]
    assert loss == "lightmuseg.losses.DiceCrossEntropyLoss"
    assert all(network.label_codes == codes for network in before.values())
    assert models["tumor"].network() is before["tumor"]
    state = torch.load(stores["tumor"].path(0), weights_only=True)
    changed = OrderedDict((name, value + 1) for name, value in state.items())
    changed.card = state.card
    torch.save(changed, tmp_path / "better.pt")
    stores["tumor"].add(tmp_path / "better.pt", {}, use=True)
    assert models["tumor"].network().sha256 == sha256_of(tmp_path / "better.pt")
    assert models["tissue"].network() is before["tissue"]


def test_an_image_of_labels_teaches_a_model_of_fewer_classes(root, tmp_path):
    codes = {"tumor": [1], "stroma": [2]}
    network = BundleNetwork(root / "bundle", root / "bundle" / "models" / "model.pt", label_codes=codes)
    images = labelled(tmp_path, ["a", "b"])
    indices = np.asarray(Image.open(images[0].label)).copy()
    indices[300:] = 2
    Image.fromarray(indices).save(images[0].label)
    manifest = prepare(images, network, tmp_path / "work", 0.5)
    counted = Counter()
    for tile in manifest["tiles"]:
        counted += Counter({int(code): count for code, count in tile["code_pixels"].items()})
    assert counted[2] >= 212 * 512
    assert counted[1] > 0


def test_network_of_several_classes_is_the_variants(root, tmp_path):
    torch.manual_seed(0)
    torch.save(LightMuSeg(out_channels=5, encoder_weights=None).state_dict(), tmp_path / "five.pt")
    network = BundleNetwork(root / "bundle", tmp_path / "five.pt", ["multiclass"])
    assert network.class_names == ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
    (image,) = labelled(tmp_path, ["a"])
    with predicted(image.image, network) as prediction:
        classes = prediction.image()
        found = dict.fromkeys(network.class_names, 0.0)
        for name, polygon in prediction.annotations():
            found[name] += polygon.area
    assert classes.shape == (512, 1024)
    for index, name in enumerate(network.class_names, start=1):
        assert found[name] == pytest.approx((classes == index).sum(), rel=0.1, abs=500)
    assert np.unique(classes).max() > 1
    scored = score_patches(image.image, network, "entropy")
    assert len(scored["patches"]) == 2


@pytest.mark.parametrize("method", ["entropy", "epistemic"])
def test_patches_are_ranked_by_what_the_network_does_not_know(method, network, data, tmp_path):
    roi = Image.open(data / "bcss" / "rgbs" / "TCGA-A2-A0D2-DX1_xmin96887_ymin22299_MPP-0.2500.png").convert("RGB")
    roi.crop((900, 500, 1924, 1524)).save(tmp_path / "a.png")
    scored = score_patches(tmp_path / "a.png", network, method)
    patches = scored["patches"]
    assert sorted(patch[:4] for patch in patches) == [[x, y, 512, 512] for x in (0, 512) for y in (0, 512)]
    assert [patch[4] for patch in patches] == sorted((patch[4] for patch in patches), reverse=True)
    assert scored["score"] == pytest.approx(np.mean([patch[4] for patch in patches]), abs=1e-6)
    x, y = patches[0][:2]
    Image.open(tmp_path / "a.png").crop((x, y, x + 512, y + 512)).save(tmp_path / "b.png")
    assert score_patches(tmp_path / "b.png", network, method)["score"] == pytest.approx(patches[0][4], abs=1e-4)
    assert score_patches(tmp_path / "a.png", network, method, most=2)["patches"] != patches
    assert json.loads(json.dumps(scored)) == scored


def test_next_patch_is_neither_annotated_nor_taken():
    scored = {"patches": [[0, 0, 100, 100, 0.9], [100, 0, 100, 100, 0.8], [0, 100, 100, 100, 0.7]]}
    assert next_patch(scored, None)[:2] == [0, 0]
    assert next_patch(scored, shapely.box(0, 0, 100, 60))[:2] == [100, 0]
    assert next_patch(scored, shapely.box(0, 0, 100, 40))[:2] == [0, 0]
    assert next_patch(scored, shapely.box(0, 0, 100, 60), [[100, 0, 5]])[:2] == [0, 100]
    assert next_patch(scored, shapely.box(0, 0, 200, 200)) is None


def test_patch_of_another_size_lies_around_it_on_the_slide():
    assert fitted([100, 100, 50, 50], (20, 30), (500, 400)) == Box(115, 110, 20, 30)
    assert fitted([0, 380, 50, 20], (100, 100), (500, 400)) == Box(0, 300, 100, 100)
    assert fitted([0, 0, 50, 50], (1000, 1000), (500, 400)) == Box(0, 0, 500, 400)


@pytest.mark.parametrize("name", ["a#b", "@##lr", "$os.getcwd()", "%train.json#seed", "a::b"])
def test_a_folder_of_slides_may_be_called_anything(name, network):
    config = network.training(dataset_dir=f"/slides/{name}", max_epochs=3)
    assert config.get_parsed_content("dataset_dir") == f"/slides/{name}"
    assert config.get_parsed_content("max_epochs") == 3
