"""Weights that say what they are."""

import dataclasses
import re
from collections import OrderedDict
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from lightmuseg.errors import InputError
from lightmuseg.models import card_for
from lightmuseg.models.card import ModelCard, card_of, save_model
from lightmuseg.models.model import Model
from lightmuseg.models.packaged import bundle_folder, find_model
from lightmuseg.networks import LightMuSeg, UNet

FOUR = {"tumor": [1], "stroma": [2], "lymphocytic_infiltrate": [3], "necrosis_or_debris": [4]}


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


def network_of(classes, **arguments):
    torch.manual_seed(0)
    channels = 1 if classes == 1 else 1 + classes
    return LightMuSeg(out_channels=channels, encoder_weights=None, **arguments).eval()


@pytest.fixture(scope="module")
def four():
    return network_of(4, msffm=False)


@pytest.fixture
def saved(tmp_path, four):
    card = ModelCard(FOUR, network=four.arguments, mpp=0.5, tile_size=256, name="mine", figures={"dice": 0.5})
    save_model(tmp_path / "model.pt", four.state_dict(), card)
    return tmp_path / "model.pt"


def test_a_model_is_its_network_again(saved, four):
    model = Model.open(saved)
    tile = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.network()(tile), four(tile))
    assert model.network(output_stride=2)(tile).shape == (1, 5, 32, 32)
    card = model.card
    assert (card.class_names, card.mpp, card.tile_size, card.figures) == (tuple(FOUR), 0.5, 256, {"dice": 0.5})
    assert model.describe()["msffm"] is False


def test_the_file_is_a_state_dict_for_every_other_program(saved, four):
    read = torch.load(saved, weights_only=True)
    assert set(read) == set(four.state_dict())
    network_of(4, msffm=False).load_state_dict(read)
    assert read.card["colours"]["tumor"] == [220, 38, 38]
    assert read.card["concepts"]["necrosis_or_debris"] == "6574001"


def test_concepts_are_those_of_pydicom():
    codes = pytest.importorskip("pydicom.sr.codedict").codes
    from lightmuseg.classes import ANY_TISSUE, CONCEPTS

    for category, category_number, kind, number in (*CONCEPTS.values(), ANY_TISSUE):
        assert getattr(codes.SCT, category).value == category_number
        assert getattr(codes.SCT, kind).value == number


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"classes": {"tumor": [1]}}, "classes"), ({"backbone": "vit"}, "backbone"), ({"msffm": True}, "msffm"),
    ],
)  # fmt: skip
def test_a_config_cannot_contradict_the_card(saved, values, words):
    with refused(str(saved), "card says", words):
        Model.open(saved, **values)


def test_a_config_may_say_the_same_and_another_scale(saved):
    card = Model.open(saved, classes=FOUR, msffm=False, mpp=0.4, tile_size=512, backbone=None).card
    assert (card.mpp, card.tile_size) == (0.4, 512)


@pytest.mark.parametrize(("count", "names"), [(1, ("tumor",)), (4, tuple(FOUR))])
def test_weights_of_earlier_versions_are_known_by_their_channels(tmp_path, caplog, count, names):
    network = network_of(count)
    torch.save(network.state_dict(), tmp_path / "old.pt")
    model = Model.open(tmp_path / "old.pt")
    assert model.card.class_names == names
    assert "carries no description" in caplog.text
    tile = torch.rand(1, 3, 64, 64)
    assert torch.equal(model.network()(tile), network(tile))


def test_weights_of_other_classes_want_their_config(tmp_path):
    torch.save(network_of(2).state_dict(), tmp_path / "old.pt")
    with refused("old.pt", "does not say its classes", "--override"):
        Model.open(tmp_path / "old.pt")
    with refused("old.pt", "has 3 outputs, not 1", "tumor"):
        Model.open(tmp_path / "old.pt", classes={"tumor": [1]})
    assert Model.open(tmp_path / "old.pt", classes={"tumor": [1], "fat": [9]}).card.class_names == ("tumor", "fat")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": {}}, {"classes": {"tumor": "1"}}, {"classes": {1: [1]}}, {"mpp": 0}, {"mpp": float("nan")},
        {"tile_size": 100}, {"tile_size": "512"}, {"network": {"a": []}}, {"image_mean": [1, 2]}, {"name": 3},
        {"image_deviation": [1, 0, 1]}, {"figures": {"dice": "high"}}, {"image_mean": [float("nan")] * 3},
        {"classes": {"../x": [1]}}, {"limits": "x" * 2001}, {"limits": ["x"]}, "text", 7,
    ],
)  # fmt: skip
def test_a_card_that_cannot_be_is_refused(tmp_path, change):
    state = torch.load(find_model("tumor"), weights_only=True)
    plain = ModelCard({"tumor": [1]}).plain()
    state = type("State", (dict,), {})(state)
    state.card = {**plain, **change} if isinstance(change, dict) else change
    with refused("m.pt", "copy or download"):
        card_of(state, "m.pt")


@pytest.mark.parametrize("name", ["tissue", "other"])
def test_a_class_cannot_have_the_name_of_a_measure_that_is_no_class(name):
    with refused("a class cannot be named", repr(name)):
        ModelCard({"tumor": [1], name: [2]})


def test_a_network_that_cannot_be_made_is_refused(saved):
    model = Model.open(saved)
    for card, words in (
        (dataclasses.replace(model.card, architecture="os"), "is of the network 'os'"),
        (dataclasses.replace(model.card, network={"backbone": "vgg"}), "vgg"),
        (dataclasses.replace(model.card, network={"nonsense": 1}), "nonsense"),
        (dataclasses.replace(model.card, network={"msffm": True}), "do not fit"),
    ):
        with refused(str(saved), words):
            Model(model.path, card, model.weights).network()


def test_another_normalisation_is_that_of_the_card(saved, four):
    model = Model.open(saved)
    mean, deviation = [0.7, 0.5, 0.6], [0.2, 0.25, 0.3]
    card = dataclasses.replace(model.card, image_mean=mean, image_deviation=deviation)
    pixels = np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)

    def normalised(mean, deviation):
        return torch.from_numpy((pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(deviation, (3, 1, 1))).float()

    given = normalised([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    expected = four(normalised(mean, deviation))
    own = Model(model.path, card, model.weights)
    torch.testing.assert_close(own.network(by_imagenet=True)(given), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(own.network()(normalised(mean, deviation)), expected)


def test_the_order_of_classes_is_part_of_the_card(saved):
    with refused(str(saved), "card says", "classes"):
        Model.open(saved, classes=dict(reversed(FOUR.items())))


def test_what_is_assumed_holds_for_weights_without_a_card_alone(saved, tmp_path):
    assumed = {"classes": {"fat": [9], "glass": [0]}, "merged_codes": {"19": 1}, "tile_size": 224}
    assert Model.open(saved, assumed=assumed).card.class_names == tuple(FOUR)
    torch.save(network_of(2).state_dict(), tmp_path / "old.pt")
    card = Model.open(tmp_path / "old.pt", assumed=assumed).card
    assert (card.class_names, card.merged_codes, card.tile_size) == (("fat", "glass"), {"19": 1}, 224)


def test_a_unet_of_a_card_is_made_again(tmp_path):
    if find_spec("segmentation_models_pytorch") is None:
        pytest.skip("segmentation-models-pytorch is not installed")
    network = UNet(out_channels=1, backbone="mobilenet_v2", encoder_weights=None).eval()
    save_model(tmp_path / "unet.pt", network.state_dict(), card_for(network, classes={"tumor": [1]}))
    model = Model.open(tmp_path / "unet.pt")
    tile = torch.rand(1, 3, 64, 64)
    # which has no output at half the resolution
    assert torch.equal(model.network(output_stride=2)(tile), network(tile))


def test_attributes_of_a_file_hide_nothing(tmp_path, four):
    state = OrderedDict(four.state_dict())
    state.get = "hidden"
    torch.save(state, tmp_path / "hostile.pt")
    assert Model.open(tmp_path / "hostile.pt", msffm=False).card.class_names == tuple(FOUR)


@pytest.mark.parametrize(
    ("name", "file", "classes"), [("tumor", "model.pt", {"tumor": [1]}), ("tissue", "tissue.pt", FOUR)]
)
def test_the_packages_own_models_are_described(root, name, file, classes):
    model = Model.open(name)
    assert model.path == root / "bundle" / "models" / file == bundle_folder() / "models" / file
    assert model.card.name == name
    assert model.card.dataset
    assert model.card.licence
    assert dict(model.card.classes) == classes
    assert {value.dtype for value in torch.load(model.path, weights_only=True).values()} == {torch.half, torch.int64}
    tile = torch.rand(1, 3, 64, 64)
    assert model.network()(tile).shape == (1, model.card.channels, 64, 64)


def test_limits_go_with_the_weights_into_records(saved):
    model = Model.open(saved)
    assert model.describe()["name"] == "mine"
    assert "limits" not in model.describe()
    save_model(saved, model.weights, dataclasses.replace(model.card, limits="One patient."))
    assert Model.open(saved).card.limits == Model.open(saved).describe()["limits"] == "One patient."


def test_a_model_that_nobody_knows_is_refused():
    with refused("tumour: no such weights file", "none of the models tumor, tissue", "lightmuseg models"):
        find_model("tumour")
