"""Every override trains, evaluates and infers through the same bundle, or builds and learns where another one did."""

import json
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from PIL import Image

from lightmuseg import Segmenter

FAST = {"tile_size": 64, "batch_size": 2, "num_workers": 0}
SEVERAL = {
    "classes": {"tumor": [1], "stroma": [2], "lymphocytic_infiltrate": [3], "necrosis_or_debris": [4]},
    "scale_range": 0.0, "translate_range": 0.0, "flip_probability": 0.0, "colour_range": 0.2, "blur_probability": 0.5,
}  # fmt: skip
RECIPE = {
    "cosine_epochs": 30, "warm_up": 0.08, "weight_average": 0.99, "epoch_tiles": 300,
    "sample_weights": {"bcss": 1.0, "camelyon": 0.3, "brecahad": 0.0, "histolytics": 0.1, "glass": 0.1},
    "scale_range": 0.25, "translate_range": 16.0, "flip_probability": 0.5, "brightness_range": 0.15,
    "colour_range": 0.0, "blur_probability": 0.7, "blur_range": [0.25, 2.5], "jpeg_probability": 0.5,
    "noise_deviation": 0.02, "stain_range": 0.15, "stain_shift": 0.03, "glass_probability": 0.2, "keep": "last",
}  # fmt: skip
# Overrides, options beside them, what of the training's options they change, and the network's trainable parameters
# where the paper or its library says them.
VARIANTS = {
    "v1": (["v1.json"], {}, {"freeze_encoder": True}, 4_828_509),
    "v2": ([], {}, {}, 6_640_221),
    "v3": (["v3.json"], {}, {"deep_supervision": True}, 6_664_712),
    "no_msffm": (["no_msffm.json"], {}, {"msffm": False}, None),
    "grouped": (["grouped.json"], {}, {"merged_codes": {"19": 1, "20": 1, "10": 3, "11": 3}}, 6_640_221),
    "multiclass": (["multiclass.json"], {}, SEVERAL, None),
    "weak": (["multiclass.json", "weak.json"], {}, SEVERAL, None),
    "v3 of several classes": (["multiclass.json", "v3.json"], {}, {**SEVERAL, "deep_supervision": True}, None),
    "reference": (["reference.json"], {"crop_size": 64, "val_interval": 1}, RECIPE, 6_640_221),
    "reference of several classes": (
        ["multiclass.json", "reference.json"],
        {"crop_size": 64, "val_interval": 1},
        {**SEVERAL, **RECIPE},
        None,
    ),
    "efficientnet_b0": (["efficientnet_b0.json"], {}, {"backbone": "efficientnet_b0"}, None),
    "vit": (["vit.json"], {}, {"backbone": "vit"}, None),
    "baseline": (["baseline.json"], {"backbone": "mobilenet_v2"}, {}, 6_628_945),
    "baseline of several classes": (
        ["multiclass.json", "baseline.json"],
        {"backbone": "timm-mobilenetv3_large_100"},
        {**SEVERAL, "backbone": "timm-mobilenetv3_large_100"},
        None,
    ),
}
# One of each kind: side heads and several classes; a frozen encoder, another encoder, another network.
TRAINED = {
    "v3 of several classes": (), "v1": pytest.mark.training, "efficientnet_b0": pytest.mark.training,
    "baseline": pytest.mark.training,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


def parsed(root, overrides, **options):
    parser = ConfigParser()
    parser.read_config([str(root / "bundle" / "configs" / name) for name in ("train.json", *overrides)])
    parser.update({**FAST, **options, "encoder_weights": None})
    return parser


def trainable(network):
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_changes_what_it_names_alone_and_takes_a_step(name, root, dataset):
    overrides, options, changed, parameters = VARIANTS[name]
    variant, plain = (
        parsed(root, overrides, dataset_dir=str(dataset), **options),
        parsed(root, [], dataset_dir=str(dataset)),
    )
    ours, theirs = (parser.get_parsed_content("options") for parser in (variant, plain))
    assert ours == {**theirs, **changed}

    torch.manual_seed(0)
    network = variant.get_parsed_content("network").train()
    assert parameters in (None, sum(parameter.numel() for parameter in trainable(network)))
    batch = next(iter(variant.get_parsed_content("train#dataloader")))
    image, label = batch["image"], batch["label"]
    before = [parameter.clone() for parameter in trainable(network)]
    answer = network(image)
    # that of the head and those of the three side heads
    outputs = (4,) if "v3.json" in overrides else ()
    assert answer.shape == (2, *outputs, 5 if "multiclass.json" in overrides else 1, 64, 64)
    loss = variant.get_parsed_content("loss")(answer, label)
    loss.backward()
    variant.get_parsed_content("optimizer").step()
    assert loss.isfinite()
    learned = [not torch.equal(old, new) for old, new in zip(before, trainable(network))]
    assert sum(learned) > 0.9 * len(learned)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=TRAINED.get(name, pytest.mark.nightly)) for name in VARIANTS]
)
def test_variant_trains_evaluates_and_infers(name, root, dataset, tmp_path):
    overrides, options, _, _ = VARIANTS[name]
    options = {**options, "encoder_weights": None}

    def bundle(run_id, *configs, **more):
        paths = [str(root / "bundle" / "configs" / config) for config in configs]
        run_bundle(run_id=run_id, config_file=paths, logging_file=False, **{**FAST, **more})

    train, test, maps = tmp_path / "train", tmp_path / "test", tmp_path / "maps"
    bundle(
        "training", "train.json", *overrides, dataset_dir=str(dataset), output_dir=str(train), max_epochs=1, **options
    )
    checkpoint = str(train / "model.pt")
    more = {"dataset_dir": str(dataset), "output_dir": str(test), "checkpoint": checkpoint}
    # the weights say what they are
    bundle("evaluating", "train.json", "evaluate.json", **more)
    bundle("run", "inference.json", **{**more, "dataset_dir": str(dataset / "images"), "output_dir": str(maps)})
    segmenter = Segmenter(checkpoint)
    classes = segmenter.predict(np.zeros((70, 90, 3), np.uint8), mpp=0.25)
    assert classes.shape == (70, 90)
    assert segmenter.model.card.figures.keys() == {"val_pooled_dice"}

    metrics = json.loads((test / "run.json").read_text())["metrics"]
    several = "multiclass.json" in overrides
    assert ("val_pooled_iou_stroma" in metrics) == several
    assert all(0 <= metrics[key] <= 1 for key in ("val_pooled_dice", "val_structure_measure", "val_weighted_f_measure"))
    classes = np.asarray(Image.open(next(maps.glob("*_classes.png"))))
    assert classes.shape == (64, 64)
    assert classes.max() <= (4 if several else 1)
    assert len(list((test / "regions").glob("*.png"))) == 2
    # side heads of deep supervision are left out by the loader alone
    network = parsed(root, overrides, **options).get_parsed_content("network_def")
    assert set(torch.load(checkpoint, weights_only=True)) == set(network.state_dict())


def test_grouped_codes_count_as_the_papers_classes(root):
    parser = ConfigParser()
    parser.read_config([str(root / "bundle" / "configs" / f"{n}.json") for n in ("train", "multiclass", "grouped")])
    to_classes = parser.get_parsed_content("normalising")[0]
    codes = torch.tensor([[[0, 1, 2, 3, 4, 7, 10, 11, 19, 20, 21, 5]]])
    assert to_classes({"label": codes})["label"].tolist() == [[[255, 1, 2, 3, 4, 255, 3, 3, 1, 1, 0, 0]]]
