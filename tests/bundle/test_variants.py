"""Every override trains, evaluates and infers through the same bundle."""

import json
import sys

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import run as run_bundle
from PIL import Image

FAST = {"tile_size": 64, "batch_size": 2, "num_workers": 0}
# Overrides, options beside them, and the network's trainable parameters where the paper or its library says them.
VARIANTS = {
    "v1": (["v1.json"], {}, 4_828_509),
    "v2": ([], {}, 6_640_221),
    "v3": (["v3.json"], {}, 6_664_712),
    "no_msffm": (["no_msffm.json"], {}, None),
    "grouped": (["grouped.json"], {}, 6_640_221),
    "multiclass": (["multiclass.json"], {}, None),
    "weak": (["multiclass.json", "weak.json"], {}, None),
    "v3 of several classes": (["multiclass.json", "v3.json"], {}, None),
    "efficientnet_b0": (["efficientnet_b0.json"], {}, None),
    "vit": (["vit.json"], {}, None),
    "baseline": (["baseline.json"], {"backbone": "mobilenet_v2"}, 6_628_945),
    "baseline of several classes": (
        ["multiclass.json", "baseline.json"],
        {"backbone": "timm-mobilenetv3_large_100"},
        None,
    ),
}


@pytest.fixture(autouse=True)
def _own_hook(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_trains_evaluates_and_infers(name, root, dataset, tmp_path):
    overrides, options, parameters = VARIANTS[name]
    options = {**FAST, **options, "encoder_weights": None}

    def bundle(run_id, *configs, **more):
        paths = [str(root / "bundle" / "configs" / config) for config in configs]
        run_bundle(run_id=run_id, config_file=paths, logging_file=False, **{**options, **more})

    train, test, maps = tmp_path / "train", tmp_path / "test", tmp_path / "maps"
    bundle("training", "train.json", *overrides, dataset_dir=str(dataset), output_dir=str(train), max_epochs=1)
    checkpoint = str(train / "model.pt")
    more = {"dataset_dir": str(dataset), "output_dir": str(test), "checkpoint": checkpoint}
    bundle("evaluating", "train.json", *overrides, "evaluate.json", **more)
    bundle(
        "run", "inference.json", *overrides, **{**more, "dataset_dir": str(dataset / "images"), "output_dir": str(maps)}
    )

    metrics = json.loads((test / "run.json").read_text())["metrics"]
    several = "multiclass.json" in overrides
    assert ("val_pooled_iou_stroma" in metrics) == several
    assert all(0 <= metrics[key] <= 1 for key in ("val_pooled_dice", "val_structure_measure", "val_weighted_f_measure"))
    classes = np.asarray(Image.open(next(maps.glob("*_classes.png"))))
    assert classes.shape == (64, 64)
    assert classes.max() <= (4 if several else 1)
    assert len(list((test / "regions").glob("*.png"))) == 2
    if parameters is not None:
        parser = ConfigParser()
        parser.read_config([str(root / "bundle" / "configs" / config) for config in ("train.json", *overrides)])
        parser.update(options)
        network = parser.get_parsed_content("network_def")
        assert sum(p.numel() for p in network.parameters() if p.requires_grad) == parameters
        # side heads of deep supervision are left out by the loader alone
        assert set(torch.load(checkpoint, weights_only=True)) == set(network.state_dict())


def test_grouped_codes_count_as_the_papers_classes(root):
    parser = ConfigParser()
    parser.read_config([str(root / "bundle" / "configs" / f"{n}.json") for n in ("train", "multiclass", "grouped")])
    to_classes = parser.get_parsed_content("normalising")[0]
    codes = torch.tensor([[[0, 1, 2, 3, 4, 7, 10, 11, 19, 20, 21, 5]]])
    assert to_classes({"label": codes})["label"].tolist() == [[[255, 1, 2, 3, 4, 255, 3, 3, 1, 1, 0, 0]]]
