"""Files called like MONAI's signs in configs are the files that are read and written."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.slides.bundle import configured, load_segmenter, quantize_bundle, run_bundle

# what MONAI makes of each in a config: another name, the value of a key, another file, or a run of Python
NAMES = (
    "a@##b", "a#b", "@#a", "@slides", "@", "$a", "$1+1", "$import os", "%a", "%a.json#b", "a::b", "a%##b", "a,b",
    "['a']",
)  # fmt: skip
NETWORK = (
    "$type('Dark', (), {'tile_size': 256, 'output_stride': 2, 'out_channels': 1, 'parity': None, "
    "'describe': lambda self: {'runtime': 'dark'}, '__call__': lambda self, t: 150.0 - t[:, None, ::2, ::2, 1]})()"
)


def picture(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((64, 64, 3), shade, np.uint8)).save(path)
    return path


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def bundle(root, tmp_path):
    """Copy the bundle's configs and link its weights; a network that costs nothing takes their place."""

    def make(name):
        folder = tmp_path / name
        shutil.copytree(root / "bundle" / "configs", folder / "configs")
        (folder / "models").mkdir()
        (folder / "models" / "model.pt").symlink_to(root / "bundle" / "models" / "model.pt")
        (folder / "dark.json").write_text(json.dumps({"runtime_def": NETWORK, "tissue_mask": False, "slide_mpp": 0.25}))
        return folder

    return make


@pytest.mark.parametrize("name", NAMES)
def test_the_files_that_are_named_are_those_that_are_read(bundle, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    bundle = bundle(f"bundle {name}")
    slide, decoy = picture(tmp_path / f"{name}.png", 100), picture(tmp_path / "a@b.png", 200)
    model, region = tmp_path / f"{name}.pt", tmp_path / f"{name}.geojson"
    shutil.copy(bundle / "models" / "model.pt", model)
    ring = [[0, 0], [32, 0], [32, 32], [0, 32]]
    region.write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    override = bundle / f"{name}.json"
    shutil.copy(bundle / "dark.json", override)
    values = {"checkpoint": Path(f"{name}.pt"), "region": Path(f"{name}.geojson")}
    run_bundle(bundle, override, [Path(f"{name}.png")], Path(f"out {name}"), values)
    record = json.loads((tmp_path / f"out {name}" / name / "run.json").read_text())
    assert record["slide"] == str(slide)
    assert record["slide_sha256"] == digest(slide) != digest(decoy)
    assert record["options"]["output_dir"] == str(tmp_path / f"out {name}")
    assert record["options"]["region"] == str(region)
    assert record["analysed_share"] == 0.25
    assert record["model"]["weights_sha256"] == digest(model)
    with open(tmp_path / f"out {name}" / "report.csv", newline="") as file:
        assert [row["slide"] for row in csv.DictReader(file)] == [str(slide)]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundles_own_files_are_found_wherever_it_lies(bundle, tmp_path, name):
    bundle = bundle(name)
    config = configured([bundle / "configs" / "inference_wsi.json"], bundle)
    assert config.get_parsed_content("checkpoint") == str(bundle / "models" / "model.pt")
    assert config.get_parsed_content("output_dir") == str(bundle / "output" / "slides")


@pytest.mark.parametrize("value", [*NAMES, ["$1", "@slides"], {"_target_": "os.getcwd"}, "$__import__('os').getcwd()"])
def test_a_value_is_never_run(bundle, value):
    bundle = bundle("bundle")
    config = configured([bundle / "configs" / "train.json"], bundle, {"dataset_dir": value, "max_epochs": value})
    assert config.get_parsed_content("dataset_dir") == value
    assert config.get_parsed_content("max_epochs") == value


def test_a_value_may_lie_below_the_top(bundle):
    bundle = bundle("bundle")
    config = configured([bundle / "configs" / "train.json"], bundle, {"classes#stroma": [2], "optimizer#lr": 0.5})
    assert config.get_parsed_content("class_names") == ["tumor", "stroma"]
    assert config.get_parsed_content("classes")["stroma"] == [2]


def test_a_device_that_is_none_ends_in_one_line(bundle, tmp_path):
    bundle = bundle("bundle")
    for device in ("gpu 1", "'); import os #"):
        with pytest.raises(InputError, match=r"\A--device [^\n]*: is no device of PyTorch; give cpu or cuda:0.\Z"):
            load_segmenter(bundle, None, [], tmp_path / "out", {"device": device})


def test_weights_to_quantize_are_those_that_are_named(bundle, tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(InputError, match=r"/a@##b.pt: no such weights file"):
        quantize_bundle(bundle("bundle"), None, tmp_path / "a@##b.pt", tmp_path)


def test_the_command_reads_the_file_that_it_is_given(run, bundle, tmp_path):
    bundle = bundle("bundle")
    picture(tmp_path / "a@##b.png", 100), picture(tmp_path / "a@b.png", 200)
    words = ("segment", "a@##b.png", "--output", "$out", "--bundle", bundle, "--override", bundle / "dark.json")
    status, stdout, stderr = run("python", "-m", "lightmuseg.cli", *words, "--device", "cpu", cwd=tmp_path)
    assert status == 0, stderr
    assert stdout == "$out: a@##b, report.csv\n"
    record = json.loads((tmp_path / "$out" / "a@##b" / "run.json").read_text())
    assert record["slide_sha256"] == digest(tmp_path / "a@##b.png")


def test_the_command_reads_and_reports_a_name_that_is_no_unicode(run, bundle, tmp_path):
    bundle, odd = bundle("bundle"), os.fsdecode(b"caf\xe9")
    try:
        picture(tmp_path / f"{odd}.png", 100)
    except OSError:
        pytest.skip("this file system has no such names")
    words = (f"{odd}.png", "--output", f"{odd} out", "--bundle", bundle, "--override", bundle / "dark.json", "--resume")
    for _ in range(2):
        status, stdout, stderr = run("python", "-m", "lightmuseg.cli", "segment", *words, cwd=tmp_path, truly=True)
        assert status == 0, stderr
        assert stdout.startswith("caf\\udce9 out: caf\\udce9, report.csv")
    with open(tmp_path / f"{odd} out" / "report.csv", newline="", encoding="utf-8") as file:
        assert [row["slide"] for row in csv.DictReader(file)] == [f"{tmp_path}/caf\\udce9.png"]
