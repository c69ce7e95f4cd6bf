"""A training and an evaluation are followed by MLflow, in an environment that has it."""

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from preloaded import Preloaded
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RUN = ("-W", "ignore", "-m", "monai.bundle", "run")
FAST = ("--tile_size", 64, "--batch_size", 2, "--num_workers", 0, "--encoder_weights", "None", "--max_epochs", 2)
# What is in MLflow's store, read by its own client, as JSON.
READ = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
runs = [run for each in client.search_experiments() for run in client.search_runs(each.experiment_id)]
print(json.dumps([{
    "status": run.info.status,
    "metrics": run.data.metrics,
    "history": {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    },
    "artifacts": {
        artifact.path: open(client.download_artifacts(run.info.run_id, artifact.path)).read()
        for artifact in client.list_artifacts(run.info.run_id)
    },
} for run in runs]))
"""


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    """The interpreter of an environment with this one's packages, and before them those of the extra "tracking"."""
    needs = [need for need in map(Requirement, requires("lightmuseg")) if need.marker]
    names = [f"{need.name}{need.specifier}" for need in needs if str(need.marker).endswith('extra == "tracking"')]
    assert len(names) == 3
    folder = tmp_path_factory.mktemp("with mlflow")
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    (Path(purelib.strip()) / "these.pth").write_text(sysconfig.get_path("purelib"))
    # unlike uv, pip sees the packages that this names, and installs what is missing alone
    done = subprocess.run([python, "-m", "pip", "install", *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return python


@pytest.fixture(scope="module")
def place(root, tmp_path_factory):
    """A folder to work in that has a copy of the bundle's configs, and an empty home."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(root / "bundle" / "configs", folder / "bundle" / "configs")
    (folder / "home").mkdir()
    return folder


@pytest.fixture(scope="module")
def call(tracker, place, root):
    """Run Python with words in that environment and that folder; returns its stdout."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HOME": str(place / "home")}
    # matplotlib keeps its list of fonts, MLflow what it reports
    environment |= {"MPLCONFIGDIR": str(tracker.parents[1]), "MLFLOW_DISABLE_TELEMETRY": "true"}
    server = Preloaded(("fire", "monai.bundle", "monai.handlers", "mlflow"), str(tracker), environment)

    def call(*words):
        status, stdout, stderr = server.run([*map(str, words)], str(place), environment, 600)
        assert status == 0, stderr[-3000:]
        return stdout

    yield call
    server.close()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def trained(call, place, dataset):
    """The folder of a training of two epochs."""
    folders = ("--dataset_dir", dataset, "--output_dir", "trained")
    tracking = ("--tracking", "mlflow", "--save_execute_config", "trained/executed.json")
    before = files(place)
    call(*RUN, "training", "--config_file", "bundle/configs/train.json", *folders, *FAST, *tracking)
    assert {name for name in files(place) - before if not name.startswith("trained/")} == set()
    return place / "trained"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_is_followed(trained, call):
    (run,) = json.loads(call("-c", READ, f"sqlite:///{trained / 'mlruns.db'}"))
    assert run["status"] == "FINISHED"
    boards = [EventAccumulator(str(path)).Reload() for path in trained.glob("events.*")]
    (losses,) = [board.Scalars("train_loss") for board in boards if "train_loss" in board.Tags()["scalars"]]
    assert len(losses) > 2
    assert run["history"]["train_loss"] == [[each.step, pytest.approx(each.value)] for each in losses]
    with (trained / "metrics.csv").open(encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    names = [name for name in epochs[0] if name.startswith("val_")]
    assert "val_mean_dice" in names
    for name in names:
        assert run["history"][name] == [[int(row["epoch"]), pytest.approx(float(row[name]))] for row in epochs]
    assert list(run["artifacts"]) == ["executed.json"]
    executed = json.loads(run["artifacts"]["executed.json"])
    assert executed == json.loads((trained / "executed.json").read_text())
    assert executed["max_epochs"] == 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_evaluation_is_followed(trained, call, place, dataset):
    configs = "['bundle/configs/train.json','bundle/configs/evaluate.json']"
    folders = ("--dataset_dir", dataset, "--checkpoint", "trained/model.pt", "--output_dir", "evaluated")
    before = files(place)
    call(*RUN, "--config_file", configs, *folders, *FAST, "--tracking", "mlflow")
    assert {name for name in files(place) - before if not name.startswith("evaluated/")} == set()
    (run,) = json.loads(call("-c", READ, f"sqlite:///{place / 'evaluated' / 'mlruns.db'}"))
    lines = (place / "evaluated" / "metrics.csv").read_text().splitlines()
    scores = {name: float(value) for name, value in (line.split(",") for line in lines)}
    assert {"val_mean_dice", "val_structure_measure"} <= scores.keys()
    assert run["metrics"] == pytest.approx(scores, nan_ok=True)


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is not None, reason="MLflow is installed")
def test_tracking_without_mlflow_says_what_to_install(dataset, run, tmp_path):
    folders = ("--dataset_dir", dataset, "--output_dir", tmp_path / "out")
    options = ("--config_file", "bundle/configs/train.json", *folders, *FAST, "--tracking", "mlflow")
    status, _, stderr = run("python", *RUN, "training", *options)
    assert status == 1
    assert "Please install mlflow" in stderr
    assert not (tmp_path / "out" / "last.pt").exists()
