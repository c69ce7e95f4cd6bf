"""Every rule of the MONAI Model Zoo's contribution guide and of its pull-request check, on the exported bundle.

Rules that need an environment without the package are in test_self_contained.py: required packages can be had, the
commands verify_metadata, verify_net_in_out, ckpt_export and onnx_export pass, and the code passes black, isort, flake8.
"""

import hashlib
import json
import re
import zipfile

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from lightmuseg.models.packaged import NAMED

SIZE_LIMIT = 25_000_000


def config(exported, name):
    return json.loads((exported / "configs" / name).read_text(encoding="utf-8"))


def has(content, path):
    for key in path.split("#"):
        if key not in content:
            return False
        content = content[key]
    return True


def test_name_says_the_organ_the_stain_and_the_task_in_lower_case(exported):
    assert re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", exported.name)
    assert {"breast", "he", "segmentation"} <= set(exported.name.split("_"))


def test_files_that_the_guide_asks_for_or_recommends_are_there(exported):
    names = (
        "LICENSE", "configs/metadata.json", "configs/inference.json", "configs/logging.conf", "models/model.pt",
        "models/tissue.pt", "models/model.ts", "docs/README.md", "docs/data_license.txt",
    )  # fmt: skip
    assert [name for name in names if not (exported / name).stat().st_size] == []


def test_files_above_the_limit_are_in_large_files_with_address_and_hash(exported, downloads):
    listed = yaml.safe_load((exported / "large_files.yml").read_text())["large_files"]
    large = {path.relative_to(exported).as_posix(): path for path in exported.rglob("*")
             if path.is_file() and path.stat().st_size > SIZE_LIMIT}  # fmt: skip
    assert [entry["path"] for entry in listed] == sorted(large)
    for entry in listed:
        assert entry["url"] == f"{downloads}/{large[entry['path']].name}"
        assert entry["hash_type"] == "sha256"
        assert entry["hash_val"] == hashlib.sha256(large[entry["path"]].read_bytes()).hexdigest()


def test_configs_have_the_keys_that_the_guide_and_other_tools_read(exported):
    both = ("bundle_root", "device", "dataset_dir", "output_dir", "network_def", "network", "run")
    training = (
        "train#trainer", "train#trainer#max_epochs", "train#dataset", "train#dataset#data", "train#handlers",
        "train#preprocessing", "train#inferer", "validate#evaluator", "validate#handlers", "validate#dataset",
        "validate#dataset#data", "validate#preprocessing", "validate#postprocessing", "validate#inferer",
        "validate#key_metric",
    )  # fmt: skip
    for name, keys in (("inference.json", (*both, "inferer")), ("train.json", (*both, *training))):
        content = config(exported, name)
        assert [key for key in keys if not has(content, key)] == []


def test_interval_of_validation_is_the_key_val_interval(exported):
    train = config(exported, "train.json")
    handlers = [handler for handler in train["train"]["handlers"] if handler.get("_target_") == "ValidationHandler"]
    assert [handler["interval"] for handler in handlers] == ["@val_interval"]
    assert isinstance(train["val_interval"], int)


def test_version_is_the_packages_and_the_changelogs_last(exported, version):
    metadata = config(exported, "metadata.json")
    assert metadata["version"] == version
    assert list(metadata["changelog"])[-1] == version
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_metadata_has_the_keys(exported):
    keys = {
        "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "name", "task",
        "required_packages_version", "description", "authors", "copyright", "intended_use", "data_source", "data_type",
        "image_classes", "label_classes", "pred_classes", "eval_metrics", "references", "network_data_format",
        "supported_apps",
    }  # fmt: skip
    assert keys - config(exported, "metadata.json").keys() == set()


def test_description_is_fit_for_xml(exported):
    for key in ("description", "name", "task"):
        assert not set(config(exported, "metadata.json")[key]) & set("&\"'<>")


def test_eval_metrics_are_those_of_the_model_card(exported):
    card = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    metrics = config(exported, "metadata.json")["eval_metrics"]
    assert metrics
    for value in metrics.values():
        assert f"{value:.3f}" in card


def test_channels_of_the_metadata_are_the_networks(exported):
    formats = config(exported, "metadata.json")["network_data_format"]
    parser = ConfigParser()
    parser.read_config(exported / "configs" / "inference.json")
    (image,), (pred,) = formats["inputs"].values(), formats["outputs"].values()
    assert image["channel_def"] == {"0": "R", "1": "G", "2": "B"}
    assert list(pred["channel_def"].values()) == parser.get_parsed_content("class_names")
    assert (image["num_channels"], pred["num_channels"]) == (3, parser.get_parsed_content("out_channels"))
    low, high = (
        [
            (bound - mean) / deviation
            for mean, deviation in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
        ]
        for bound in (0, 1)
    )
    assert image["value_range"] == [pytest.approx(min(low), abs=0.1), pytest.approx(max(high), abs=0.1)]


def test_model_card_has_the_templates_sections(exported):
    card = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    sections = (
        "Authors", "Tags", "Model Description", "Data", "Preprocessing", "Performance", "Commands",
        "System Configuration", "Intended Use", "Limitations", "Citation", "References", "License",
    )  # fmt: skip
    headings = re.findall(r"^#+ \**(.*)", card, re.MULTILINE)
    assert [name for name in sections if not any(line.lower().startswith(name.lower()) for line in headings)] == []


def test_no_caches_logs_or_paths_of_the_maker(exported, root):
    names = [path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()]
    assert {name.split("/")[0] for name in names} == {
        "LICENSE", "configs", "docs", "large_files.yml", "lightmuseg", "models",
    }  # fmt: skip
    assert [name for name in names if re.search(r"__pycache__|\.py[co]$|\.log$|events\.out|^\.|/\.", name)] == []
    private = [str(root), str(exported.parent), "/home/", "/root/", "/Users/"]
    for name in names:
        content = (exported / name).read_bytes()
        if name.endswith(".ts"):
            with zipfile.ZipFile(exported / name) as archive:
                content = b"".join(archive.read(member) for member in archive.namelist() if "/data/" not in member)
        assert [word for word in private if word.encode() in content] == [], name


def test_torchscript_loads_and_gives_what_the_weights_give(exported):
    from lightmuseg.networks import LightMuSeg
    from lightmuseg.networks.weights import load_weights

    network = LightMuSeg(encoder_weights=None).eval()
    load_weights(network, exported / "models" / "model.pt")
    scripted = torch.jit.load(exported / "models" / "model.ts").eval()
    image = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-4, atol=1e-4)


def test_every_named_model_is_there_whole_and_has_a_section_in_the_card(exported, root):
    card = (exported / "docs" / "README.md").read_text(encoding="utf-8")
    for name, file in NAMED.items():
        assert (exported / "models" / file).read_bytes() == (root / "bundle" / "models" / file).read_bytes()
        assert f"| `{name}` | `models/{file}`" in card
        assert f"\n### **{name}**\n" in card


def test_torchscript_holds_the_metadata_and_the_config(exported):
    with zipfile.ZipFile(exported / "models" / "model.ts") as archive:
        for name in ("metadata.json", "inference.json"):
            (member,) = (member for member in archive.namelist() if member.endswith(f"extra/{name}"))
            held = json.loads(archive.read(member))
            assert held.get("version") == config(exported, name).get("version")


def test_zip_holds_the_folder_and_nothing_else(exported, version):
    with zipfile.ZipFile(exported.with_name(f"{exported.name}_v{version}.zip")) as archive:
        held = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    lying = {path.relative_to(exported.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
             for path in exported.rglob("*") if path.is_file()}  # fmt: skip
    assert held == lying


def test_package_is_in_the_root_less_what_monai_label_needs(exported, root):
    package = {path.relative_to(root).as_posix() for path in (root / "lightmuseg").rglob("*.py")}
    vendored = {path.relative_to(exported).as_posix() for path in (exported / "lightmuseg").rglob("*.py")}
    assert vendored == {name for name in package if not name.startswith("lightmuseg/label/")}


def test_nothing_is_overwritten(exported, run, tmp_path):
    (tmp_path / exported.name).mkdir()
    (tmp_path / exported.name / "mine.txt").write_text("mine")
    status, _, stderr = run("python", "scripts/export_bundle.py", "--output", tmp_path)
    assert status == 1
    assert "is there already; delete it or choose another --output" in stderr
    assert [path.name for path in tmp_path.rglob("*")] == [exported.name, "mine.txt"]
