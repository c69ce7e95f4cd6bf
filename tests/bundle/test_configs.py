"""What the configs declare, checked without running them."""

import json
import re
import sys

import jsonschema
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from lightmuseg.errors import user_fault
from lightmuseg.slides.bundle_config import configured
from lightmuseg.slides.options import Options


@pytest.fixture(scope="module")
def configs(root):
    folder = root / "bundle" / "configs"
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def test_metadata_is_valid_against_the_model_zoos_schema(configs, data):
    schema = json.loads((data / "model_zoo" / "meta_schema_20240725.json").read_text())
    jsonschema.validate(configs["metadata"], schema)


def test_metadata_names_the_tested_versions(configs, root):
    tested = dict(re.findall(r"^([\w-]+)==(.+)$", (root / "requirements.txt").read_text(), re.MULTILINE))
    metadata = configs["metadata"]
    assert (metadata["monai_version"], metadata["pytorch_version"]) == (tested["monai"], tested["torch"])
    assert metadata["numpy_version"] == tested["numpy"]
    for package, version in metadata["required_packages_version"].items():
        assert tested[package] == version


def test_paper_settings_stand_at_the_top_of_training(configs):
    train = configs["train"]
    paper = {"max_epochs": 150, "batch_size": 3, "learning_rate": 1e-3, "weight_decay": 1e-4}
    assert {key: train[key] for key in paper} == paper
    assert set(list(train)[: list(train).index("network_def")]) >= paper.keys()


@pytest.mark.parametrize("config", ["train", "inference"])
def test_network_is_the_papers_v2_and_maps_metadatas_input_to_its_output(configs, config, root):
    parser = ConfigParser(configs[config])
    parser["encoder_weights"] = None
    network = parser.get_parsed_content("network_def").eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_640_221
    formats = configs["metadata"]["network_data_format"]
    with torch.no_grad():
        output = network(torch.zeros(1, formats["inputs"]["image"]["num_channels"], 64, 96))
    assert output.shape == (1, formats["outputs"]["pred"]["num_channels"], 64, 96)


@pytest.mark.parametrize(("config", "kind"), [("train", "train"), ("inference", "infer")])
def test_monais_workflow_finds_its_properties(root, config, kind, dataset, tmp_path):
    path = root / "bundle" / "configs" / f"{config}.json"
    folders = {"dataset_dir": str(dataset if kind == "train" else dataset / "images"), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(str(path), workflow_type=kind, logging_file=False, encoder_weights=None, **folders)
    workflow.initialize()
    assert workflow.check_properties() == []


@pytest.mark.parametrize(("values", "mpp"), [({}, 0.3), ({"mpp": 0.4}, 0.4)])
def test_card_has_the_datasets_scale_unless_another_is_given(root, dataset, values, mpp):
    """And a training is resumed at none but its own."""
    values = {"dataset_dir": str(dataset), "encoder_weights": None, **values}
    config = configured([root / "bundle" / "configs" / "train.json"], root / "bundle", values)
    assert config.get_parsed_content("card").mpp == mpp
    assert config.get_parsed_content("options")["mpp"] == mpp


def test_overlap_is_an_eighth_at_every_door(configs):
    assert (
        {configs[name]["overlap"] for name in ("train", "inference", "inference_wsi")} == {Options.overlap} == {0.125}
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"learning_rate": 1e30}, "--learning_rate 1e+30: give a number"),
        ({"learning_rate": "fast"}, "--learning_rate fast: give a number"),
        ({"device": torch.device("cuda:99")}, "--device cuda:99: cannot compute here"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_a_training_reads_its_data(root, tmp_path, monkeypatch, values, said):
    # which the config's first step replaces
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    values = {"dataset_dir": str(tmp_path / "none"), "output_dir": str(tmp_path / "out"), **values}
    config = configured([root / "bundle" / "configs" / "train.json"], root / "bundle", values)
    with pytest.raises(Exception) as error:  # as MONAI passes it on
        config.get_parsed_content("training")
    assert user_fault(error.value).startswith(said)
    assert list(tmp_path.iterdir()) == []
