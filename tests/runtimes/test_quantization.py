"""A network in INT8: made, measured, and refused where it is another's."""

import json
import shutil

import numpy as np
import openvino
import pytest
import torch
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg
from lightmuseg.networks.weights import load_weights
from lightmuseg.runtimes import int8_folder, make_runtime, torch_runtime
from lightmuseg.runtimes.quantization import pooled_dice, quantize

pytestmark = pytest.mark.runtimes
SIDE = 64
CODING = {"classes": {"tumor": [1]}, "ignored_codes": [0]}


@pytest.fixture(scope="module")
def network(root):
    network = LightMuSeg(encoder_weights=None, output_stride=2).eval()
    load_weights(network, root / "bundle" / "models" / "model.pt")
    return network


@pytest.fixture(scope="module")
def splits(root, tmp_path_factory):
    """Tiles of real pixels; their "tumor" is where they are dark."""
    folder = tmp_path_factory.mktemp("tiles")
    picture = Image.open(root / "bundle" / "docs" / "a1g6_test.jpg").convert("RGB")
    made = {}
    for row, split in enumerate(("train", "val", "test")):
        made[split] = []
        for column in range(3):
            pixels = picture.crop((column * SIDE, row * SIDE, (column + 1) * SIDE, (row + 1) * SIDE))
            image, label = folder / f"{split}{column}.png", folder / f"{split}{column}-mask.png"
            pixels.save(image)
            Image.fromarray(np.where(np.asarray(pixels.convert("L")) < 150, 1, 2).astype(np.uint8)).save(label)
            made[split].append({"image": str(image), "label": str(label)})
    return made


@pytest.fixture(scope="module")
def quantized(network, splits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model_int8"
    return folder, quantize(network, splits, CODING, SIDE, folder, max_drop=1.0, about={"dataset": "abc"})


def test_the_record_says_what_is_lost(quantized):
    folder, record = quantized
    assert record == json.loads((folder / "quantization.json").read_text())
    assert sorted(path.name for path in folder.iterdir()) == ["model.bin", "model.xml", "quantization.json"]
    assert (record["dataset"], record["control_tiles"], record["test_tiles"]) == ("abc", 6, 3)
    for part in ("control", "test"):
        assert record["dice_float32"][part] - record["dice_int8"][part] <= record["max_drop"]
    assert 0.8 < record["agreement"] <= 1


def test_the_model_computes_in_int8_and_is_the_network(quantized, network, splits):
    folder, record = quantized
    kinds = [op.get_type_name() for op in openvino.Core().read_model(folder / "model.xml").get_ops()]
    assert kinds.count("FakeQuantize") > 20
    tiles = np.stack([np.asarray(Image.open(tile["image"])) for tile in splits["test"]])
    runtime = make_runtime(network, "openvino_int8", SIDE, int8=folder)
    assert runtime.info.precision == "int8"
    same = 1 - runtime.compared(torch_runtime(network, SIDE), tiles).parity.changed
    assert same == pytest.approx(record["agreement"], abs=1e-3)


def test_another_networks_model_is_refused(quantized, tmp_path):
    with pytest.raises(InputError, match="made from other weights"):
        make_runtime(LightMuSeg(encoder_weights=None, output_stride=2), "openvino_int8", SIDE, int8=quantized[0])
    with pytest.raises(InputError, match="holds no network in INT8"):
        make_runtime(LightMuSeg(encoder_weights=None), "openvino_int8", SIDE, int8=tmp_path)


@pytest.mark.parametrize("says_its_stride", [True, False], ids=["recorded", "of an older record"])
def test_a_model_of_another_output_stride_is_refused(quantized, network, tmp_path, says_its_stride):
    folder = shutil.copytree(quantized[0], tmp_path / "model_int8")
    record = json.loads((folder / "quantization.json").read_text())
    assert record["output_stride"] == 2
    if not says_its_stride:
        del record["output_stride"]
        (folder / "quantization.json").write_text(json.dumps(record))
    finer = LightMuSeg(encoder_weights=None, output_stride=1).eval()
    finer.load_state_dict(network.state_dict())
    with pytest.raises(
        InputError, match="at an output stride of 2 pixels, and this --output_mpp needs 1; give another"
    ):
        make_runtime(finer, "openvino_int8", SIDE, int8=folder)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_files_that_are_not_as_they_were_made_are_refused(quantized, network, tmp_path, name):
    folder = shutil.copytree(quantized[0], tmp_path / "model_int8")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match="model_int8: its files are not those that were made; delete it"):
        make_runtime(network, "openvino_int8", SIDE, int8=folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match="holds no network in INT8"):
        make_runtime(network, "openvino_int8", SIDE, int8=folder)


def test_what_is_there_is_not_overwritten(quantized, network, splits):
    with pytest.raises(InputError, match="is there already"):
        quantize(network, splits, CODING, SIDE, quantized[0], 1.0, {})


def test_tiles_of_another_size_are_refused(splits, tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(8, 1, 1))
    with pytest.raises(InputError, match="is no tile of 128 x 128"):
        quantize(network, splits, CODING, 128, tmp_path / "int8", 1.0, {})
    assert list(tmp_path.iterdir()) == []


def test_dice_is_that_of_all_annotated_pixels_together():
    torch.manual_seed(0)
    logits = [torch.randn(1, 1, 8, 8).numpy() for _ in range(2)]
    labels = [torch.randint(0, 2, (1, 8, 8)).numpy() for _ in range(2)]
    labels[0][0, :2] = 255
    calls = iter(logits)
    dice = pooled_dice(lambda pixels: next(calls), [(None, label) for label in labels], 1)
    found = np.concatenate([one[0] > 0 for one in logits])
    label = np.concatenate(labels)
    found, label = found[label != 255], label[label != 255]
    assert dice == pytest.approx(2 * (found & (label == 1)).sum() / (found.sum() + label.sum()))


def test_it_lies_beside_the_weights(tmp_path):
    assert int8_folder(tmp_path / "model.pt") == tmp_path / "model_int8"
