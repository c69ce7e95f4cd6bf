"""Files called like MONAI's signs in configs are the files that are read and written."""

import csv
import hashlib
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import fire
import numpy as np
import pytest
import torch
from PIL import Image

from lightmuseg import outputs
from lightmuseg.cli import COMMANDS
from lightmuseg.cli.arguments import checked
from lightmuseg.errors import InputError
from lightmuseg.models import packaged
from lightmuseg.runtimes import RuntimeInfo, choice
from lightmuseg.runtimes.quantization import quantize_model
from lightmuseg.slides.bundle_config import configured, make_segmenter

# what MONAI makes of each in a config: another name, the value of a key, another file, or a run of Python
NAMES = (
    "a@##b", "a#b", "@#a", "@slides", "@", "$a", "$1+1", "$import os", "%a", "%a.json#b", "a::b", "a%##b", "a,b",
    "['a']",
)  # fmt: skip
NETWORK = (
    "$__import__('lightmuseg.runtimes').runtimes.Runtime(lambda t: 150.0 - t[:, None, ::2, ::2, 1], "
    "__import__('lightmuseg.runtimes').runtimes.RuntimeInfo('dark', 'cpu', 'float32'), 256, 1, 2)"
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
        (folder / "dark.json").write_text(json.dumps({"runtime": NETWORK, "tissue_mask": False, "slide_mpp": 0.25}))
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
    values = {"checkpoint": Path(f"{name}.pt"), "region": Path(f"{name}.geojson"), "output_dir": Path(f"out {name}")}
    make_segmenter(values, bundle, [override]).run([Path(f"{name}.png")])
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


@pytest.mark.parametrize("name", packaged.NAMED)
@pytest.mark.parametrize("by_config", [False, True])
def test_a_model_of_the_package_is_taken_by_its_name(root, name, by_config):
    segmenter = make_segmenter({"checkpoint": name}, root / "bundle" if by_config else None)
    assert segmenter.model.path == root / "bundle" / "models" / packaged.NAMED[name]
    assert segmenter.options.class_names == segmenter.model.card.class_names
    assert segmenter.options.mpp == segmenter.model.card.mpp


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
            make_segmenter({"device": device}, bundle)


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "xpu"])
def test_a_device_that_is_not_here_is_refused_before_a_slide_is_read(bundle, tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch, "zeros", partial(zeros_without, name))
    with pytest.raises(InputError) as error:
        make_segmenter({"device": name, "output_dir": tmp_path / "out"}, bundle("bundle"))
    assert re.fullmatch(f"--device {name}: cannot compute here .*; give cpu.*", str(error.value))
    assert not (tmp_path / "out").exists()


def zeros_without(missing, *size, device=None, real=torch.zeros, **options):
    """Zeros on a machine without a device, as PyTorch refuses them there."""
    if str(device) == missing:
        raise AssertionError(f"Torch not compiled with {missing} enabled")
    return real(*size, device=device, **options)


def write_int8(folder, **record):
    folder.mkdir()
    (folder / "quantization.json").write_text(json.dumps({"weights": "", "sha256": {}, **record}))
    return str(folder)


IMPOSSIBLE = {
    "probabilities": (
        {"probabilities": True},
        "--probabilities: zarr is not installed; pip install",
    ),
    "dicom_seg": ({"dicom_seg": True}, "--dicom_seg: highdicom is not installed; pip install"),
    "runtime": ({"runtime": "onnx"}, "--runtime onnx: onnxruntime is not installed; pip install 'lightmuseg[onnx]'"),
    "region": ({"region": "roi.geojson"}, "--region roi.geojson: is neither a GeoJSON file"),
    "int8": ({"runtime": "openvino_int8"}, "model_int8: holds no network in INT8"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_cannot_be_is_refused_before_the_network_is_loaded(bundle, tmp_path, monkeypatch, case):
    values, said = IMPOSSIBLE[case]
    missing = ("zarr", "highdicom", "onnxruntime")
    for module in (outputs, choice):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name in missing else True)
    monkeypatch.setattr("lightmuseg.models.model.Model.network", lambda *_: pytest.fail("loads the network"))
    with pytest.raises(InputError) as error:
        make_segmenter(values, bundle("bundle"))
    assert said in str(error.value)


def test_an_output_folder_that_cannot_be_written_is_refused_before_the_network_is_loaded(bundle, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("lightmuseg.models.model.Model.network", lambda *_: pytest.fail("loads the network"))
    with pytest.raises(InputError) as error:
        make_segmenter({"output_dir": tmp_path / "file" / "out"}, bundle("bundle"))
    assert f"{tmp_path / 'file' / 'out'}: cannot write" in str(error.value)


@pytest.mark.parametrize(
    ("record", "values", "said"),
    [
        (
            {"tile_size": 512, "output_stride": 2}, {"output_mpp": 0.5},
            "was made at an output stride of 2 pixels, and this --output_mpp needs 1; give another --output_mpp",
        ),
        (
            {"tile_size": 256, "output_stride": 2}, {},
            "was made for tiles of 256 pixels, not 512; delete it and make it by 'lightmuseg quantize",
        ),
    ],
)  # fmt: skip
def test_int8_for_other_tiles_is_refused_before_the_network_is_loaded(
    bundle, tmp_path, monkeypatch, record, values, said
):
    monkeypatch.setattr(choice, "find_spec", lambda name: True)
    monkeypatch.setattr("lightmuseg.models.model.Model.network", lambda *_: pytest.fail("loads the network"))
    values = {"runtime": "openvino_int8", "int8": write_int8(tmp_path / "model_int8", **record), **values}
    with pytest.raises(InputError) as error:
        make_segmenter(values, bundle("bundle"))
    assert said in str(error.value)


SWITCHES = ("tissue_mask", "ome", "probabilities", "dicom_seg", "resume")


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("words", [[], ["--no-{}"], ["--{}"], ["--{}=false"], ["--{}=true"]], ids=str)
def test_a_switch_is_as_the_override_says_unless_it_is_given(bundle, tmp_path, monkeypatch, words, value):
    folder = bundle("bundle")
    override = folder / "switches.json"
    override.write_text(json.dumps(dict.fromkeys(SWITCHES, value)))
    words = [word.format(name.replace("_", "-")) for name in SWITCHES for word in words]
    found = {}

    def make(values, bundle, overrides):
        config = configured([bundle / "configs" / "inference_wsi.json", *overrides], bundle, values)
        found.update({name: config.get_parsed_content(name) for name in SWITCHES})
        values["output_dir"].mkdir()
        runtime = SimpleNamespace(info=RuntimeInfo("torch", "cpu", "float32"))
        return SimpleNamespace(run=lambda *_: None, runtime=lambda *_: runtime)

    monkeypatch.setattr("lightmuseg.slides.bundle_config.make_segmenter", make)
    line = ["segment", "a.png", "--output", str(tmp_path / "out"), "--bundle", str(folder), "--override", str(override)]
    fire.Fire(COMMANDS, command=checked([*line, *words], COMMANDS), name="lightmuseg")
    expected = value if not words else "no" not in words[0] and "false" not in words[0]
    assert found == dict.fromkeys(SWITCHES, expected)


def test_weights_to_quantize_are_those_that_are_named(tmp_path):
    pytest.importorskip("nncf")
    with pytest.raises(InputError, match=r"/a@##b.pt: no such weights file"):
        quantize_model(tmp_path / "a@##b.pt", tmp_path)


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
