"""The exported bundle in an environment that has MONAI and what metadata.json names, and not this package."""

import json
import os
import re
import shutil
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image
from preloaded import preloaded_environment

pytestmark = pytest.mark.slow

CHECKERS = ("jsonschema", "onnx", "onnxscript", "onnxruntime")
STYLE = ("black", "isort", "flake8", "flake8-bugbear", "flake8-comprehensions", "pep8-naming")
# The zoo's own settings (its setup.cfg and runtests.sh); B905 and B907 are newer than these and ignored by MONAI too.
FLAKE8 = (
    "--max-line-length", "120", "--select", "B,C,E,F,N,P,T4,W,B9", "--per-file-ignores", "__init__.py:F401",
    "--ignore", "E203,E501,E741,W503,W504,C408,N812,B023,B905,B907",
)  # fmt: skip
SHORT = {"run training": "--max_epochs 1 --tile_size 64"}


@pytest.fixture(scope="module")
def bare(exported, new_environment, tmp_path_factory):
    """An environment of the packages that metadata.json requires, each of which PyPI must have."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    metadata = json.loads((exported / "configs" / "metadata.json").read_text(encoding="utf-8"))
    named = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    pins = {package: metadata[key] for package, key in named.items()} | metadata["required_packages_version"]
    new_environment(folder, *(f"{package}=={version}" for package, version in pins.items()), *CHECKERS, *STYLE)
    return folder


@pytest.fixture(scope="module")
def inside(bare):
    """Run a line of a shell in that environment and return what it says; it must succeed."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    quiet = {"PATH": f"{bare / 'bin'}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore", "PYTHONDONTWRITEBYTECODE": "1"}

    def call(line, cwd, **environment):
        done = subprocess.run(
            ["bash", "-ec", line], cwd=cwd, capture_output=True, text=True, timeout=1200,
            env={**inherited, **quiet, **environment},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout + done.stderr

    with preloaded_environment(bare, ("fire", "ignite.engine", "monai.bundle"), {**inherited, **quiet}):
        yield call


@pytest.fixture(scope="module")
def bundle(exported, tmp_path_factory):
    """A copy of the exported bundle, to run in."""
    folder = tmp_path_factory.mktemp("taken from the zoo") / exported.name
    shutil.copytree(exported, folder)
    return folder


@pytest.fixture
def server(tmp_path):
    """The address of a folder that is served, and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    served = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}", folder
    served.shutdown()


def card(bundle, language):
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_environment_has_monai_and_not_the_package(inside, tmp_path):
    said = inside("true-python -c 'import monai'; true-python -c 'import lightmuseg' 2>&1 || true", tmp_path)
    assert "No module named 'lightmuseg'" in said


def test_every_command_of_the_model_card_runs_in_the_bundle(inside, bundle, data):
    (bundle / "eval").mkdir()
    shutil.copy(data / "model_zoo" / "meta_schema_20240725.json", bundle / "eval" / "schema.json")
    listed = [line for block in card(bundle, "bash") for line in block.splitlines() if line]
    commands = [" ".join([line, *(more for part, more in SHORT.items() if part in line)]) for line in listed]
    said = inside("\n".join(commands), bundle)
    assert "metadata is verified with no error" in said
    assert "data shape of network is verified with no error" in said
    assert "Traceback" not in said
    assert f"file: {bundle}/models/tissue.pt" in said
    for name in (
        "train/model.pt", "evaluate/run.json", "two/model.pt", "two-test/run.json", "multiclass-test/run.json",
        "slides/cmu_small_region/regions.geojson", "fields/hgsc_nest/overlay.png", "tissue/hgsc_nest/overlay.png",
        "model.ts", "model.onnx",
    ):  # fmt: skip
        assert (bundle / "output" / name).stat().st_size > 0
    assert len(list((bundle / "output" / "inference").glob("*_classes.png"))) == 20
    record = json.loads((bundle / "output" / "train" / "run.json").read_text())
    assert set(record["weights_sha256"]) == {"model.pt", "initial_weights"}

    picture = np.random.default_rng(0).normal(size=(1, 3, 512, 512)).astype(np.float32)
    np.save(bundle / "output" / "picture.npy", picture)
    inside(
        "python -c \"import numpy, onnxruntime; s = onnxruntime.InferenceSession('output/model.onnx'); "
        "numpy.save('output/logits.npy', s.run(None, {s.get_inputs()[0].name: numpy.load('output/picture.npy')})[0])\"",
        bundle,
    )
    with torch.no_grad():
        scripted = torch.jit.load(bundle / "models" / "model.ts").eval()(torch.from_numpy(picture))
    assert np.abs(np.load(bundle / "output" / "logits.npy") - scripted.numpy()).max() < 1e-3


def test_python_of_the_model_card_runs_above_the_bundle(inside, bundle):
    (block,) = card(bundle, "python")
    more = "print(sum(p.numel() for p in network.parameters()), workflow.check_properties())"
    (bundle.parent / "card.py").write_text(block + "workflow.initialize()\n" + more)
    assert "6640221 []" in inside("python card.py", bundle.parent, PYTHONPATH=str(bundle))


def test_configs_run_from_any_folder(inside, bundle, dataset, data, tmp_path):
    configs, elsewhere = bundle / "configs", tmp_path / "else where"
    elsewhere.mkdir()
    small = f"--dataset_dir '{dataset}' --tile_size 64"
    evaluation = f"['{configs}/train.json','{configs}/evaluate.json']"
    slides = f"['{data}/slides/CMU-1-Small-Region.svs']"
    commands = (
        f"training --config_file '{configs}/train.json' {small} --max_epochs 1 --output_dir train",
        f'--config_file "{evaluation}" {small} --checkpoint train/model.pt --output_dir test',
        f"--config_file '{configs}/inference.json' --dataset_dir '{dataset}/images' --output_dir maps",
        f"--config_file '{configs}/inference_wsi.json' --slides \"{slides}\" --region 0,0,900,700 --output_dir slides",
    )
    inside("\n".join(f"python -m monai.bundle run {command}" for command in commands), elsewhere)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["maps", "slides", "test", "train"]
    with Image.open(elsewhere / "slides" / "CMU-1-Small-Region" / "classes.tif") as classes:
        # of 1 um, twice the model's
        assert classes.size == (1108, 1481)


def test_zip_is_downloaded_and_loaded(inside, exported, server, tmp_path, version):
    address, folder = server
    archive = exported.with_name(f"{exported.name}_v{version}.zip")
    shutil.copy(archive, folder / f"{exported.name}.zip")
    inside(
        f"python -m monai.bundle download --name {exported.name} --url {address}/{exported.name}.zip --bundle_dir zoo",
        tmp_path,
    )
    assert (tmp_path / "zoo" / exported.name / "docs" / "README.md").read_bytes() == (
        exported / "docs" / "README.md"
    ).read_bytes()
    said = inside(
        f"PYTHONPATH=zoo/{exported.name} python -c \"from monai.bundle import load; n = '{exported.name}'; "
        "made = load(n, bundle_dir='zoo'), load(n, bundle_dir='zoo', load_ts_module=True)[0]; "
        'print(*(type(network).__name__ for network in made))"',
        tmp_path,
    )
    assert "LightMuSeg RecursiveScriptModule" in said


def test_large_files_are_downloaded_and_checked(inside, exported, server, downloads, tmp_path):
    address, folder = server
    shutil.copy(exported / "models" / "model.ts", folder)
    copy = tmp_path / exported.name
    shutil.copytree(exported, copy, ignore=shutil.ignore_patterns("model.ts"))
    listed = copy / "large_files.yml"
    listed.write_text(listed.read_text().replace(downloads, address))
    inside(f"python -m monai.bundle download_large_files --bundle_path '{copy}'", tmp_path)
    assert (copy / "models" / "model.ts").read_bytes() == (exported / "models" / "model.ts").read_bytes()


def test_code_passes_the_zoos_format_checks(inside, exported):
    inside("black --line-length 120 --skip-magic-trailing-comma --check lightmuseg", exported)
    inside("isort --profile black --line-length 120 --check lightmuseg", exported)
    inside(" ".join(["flake8", *FLAKE8, "lightmuseg"]), exported)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="TensorRT needs an NVIDIA GPU")
def test_trt_export_passes(inside, bundle):
    inside(
        "pip install --quiet torch-tensorrt; python -m monai.bundle trt_export --net_id network_def --precision fp16 "
        "--filepath output/model_trt.ts --ckpt_file models/model.pt --meta_file configs/metadata.json "
        "--config_file configs/inference.json --input_shape '[1,3,512,512]'",
        bundle,
    )
