"""The bundle trains, resumes and evaluates, run as a user runs it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_history import history, without_seconds

from lightmuseg.networks import LightMuSeg
from lightmuseg.provenance import sha256_of

pytestmark = pytest.mark.training

FAST = ("--tile_size", 64, "--batch_size", 2, "--num_workers", 0)
BUNDLE = ("python", "-m", "monai.bundle", "run")


def train(dataset, output, *options):
    """The command of a short training on small tiles."""
    folders = ("--dataset_dir", dataset, "--output_dir", output)
    start = ("--encoder_weights", "None")
    return (*BUNDLE, "training", "--config_file", "bundle/configs/train.json", *folders, *FAST, *start, *options)


@pytest.fixture(scope="module")
def trained(dataset, run, tmp_path_factory):
    """The output of a training of four epochs, in one go."""
    output = tmp_path_factory.mktemp("whole") / "sortie é"
    status, _, stderr = run(*train(dataset, output, "--max_epochs", 4))
    assert status == 0, stderr
    return output


def test_training_goes_on_from_given_weights(dataset, weights, run, tmp_path):
    still = ("--learning_rate", 1e-30, "--max_epochs", 1, "--initial_weights", weights)
    command = [word for word in train(dataset, tmp_path, *still) if word not in ("--encoder_weights", "None")]
    status, _, stderr = run(*command)
    assert status == 0, stderr
    assert "RANDOM WEIGHTS" not in stderr
    given, after = (torch.load(path, weights_only=True) for path in (weights, tmp_path / "model.pt"))
    for name, value in given.items():
        if "running_" not in name and "num_batches" not in name:
            # by that rate a zero becomes 1e-30
            assert torch.allclose(after[name], value, rtol=0, atol=1e-20), name
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["options"]["initial_weights"] == str(weights)
    assert record["weights_sha256"]["initial_weights"] == sha256_of(weights)


def test_training_writes_weights_history_record_and_pictures(trained, dataset):
    network = LightMuSeg(encoder_weights=None)
    network.load_state_dict(torch.load(trained / "model.pt", weights_only=True))
    rows = history(trained)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert all(0 <= float(row[name]) <= 1 for row in rows for name in row if name.startswith("val_"))
    record = json.loads((trained / "run.json").read_text())
    assert record["options"]["seed"] == 42
    assert record["encoder_weights"] == "random"
    assert len(record["weights_sha256"]["model.pt"]) == 64
    tags = [EventAccumulator(str(path)).Reload().Tags() for path in trained.glob("events.*")]
    assert {"train_loss", "val_mean_dice"} <= {tag for each in tags for tag in each["scalars"]}
    assert sum(len(each["images"]) for each in tags) >= 3


def test_best_weights_are_of_the_epoch_with_the_highest_validation_dice(trained):
    state = torch.load(trained / "last.pt", weights_only=True)
    dice = [float(row["val_pooled_dice"]) for row in history(trained)]
    assert state["best"]["epoch"] == 1 + dice.index(max(dice))
    assert state["best"]["value"] == pytest.approx(max(dice))


def test_killed_training_resumes_to_the_same_weights_and_metrics(trained, dataset, tmp_path):
    output = tmp_path / "killed"
    command = [sys.executable if word == "python" else str(word) for word in train(dataset, output, "--max_epochs", 4)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if (output / "metrics.csv").is_file() and len(history(output)) >= 2:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    assert process.wait() == -signal.SIGKILL
    assert 2 <= len(history(output)) < 4
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming after epoch" in again.stderr

    whole, resumed = (torch.load(folder / "last.pt", weights_only=True) for folder in (trained, output))
    assert resumed["best"] == whole["best"]
    for key, value in whole["network"].items():
        assert torch.equal(value, resumed["network"][key]), key
    assert without_seconds(history(trained)) == without_seconds(history(output))


def test_finished_training_is_left_as_it_is(trained, dataset, run):
    kept = {name: (trained / name).read_bytes() for name in ("model.pt", "last.pt", "metrics.csv")}
    status, _, stderr = run(*train(dataset, trained, "--max_epochs", 4))
    assert status == 0
    assert "nothing to do" in stderr
    assert kept == {name: (trained / name).read_bytes() for name in kept}


def test_other_options_do_not_touch_a_training(trained, dataset, run):
    kept = (trained / "last.pt").read_bytes()
    status, _, stderr = run(*train(dataset, trained, "--max_epochs", 4, "--learning_rate", 0.01))
    assert status == 1
    assert stderr.splitlines()[-1].startswith("lightmuseg: error:")
    assert "learning_rate=0.001, not 0.01" in stderr
    assert (trained / "last.pt").read_bytes() == kept


@pytest.mark.parametrize("place", ["root", "bundle", "elsewhere"])
def test_training_runs_from_anywhere_and_writes_only_into_the_bundle(place, dataset, run, root, tmp_path):
    clone = tmp_path / "a clone"
    shutil.copytree(root / "bundle", clone / "bundle", ignore=shutil.ignore_patterns("data", "output", "models"))
    shutil.copytree(dataset, clone / "bundle" / "data" / "demo")
    (tmp_path / "cwd").mkdir()
    folder, config, extra = {
        "root": (clone, "bundle/configs/train.json", ()),
        "bundle": (clone / "bundle", "configs/train.json", ()),
        "elsewhere": (tmp_path / "cwd", clone / "bundle/configs/train.json", ("--bundle_root", clone / "bundle")),
    }[place]
    status, _, stderr = run(
        *BUNDLE, "training", "--config_file", config, *extra, *FAST, "--max_epochs", 1,
        "--encoder_weights", "None", cwd=folder,
    )  # fmt: skip
    assert status == 0, stderr
    assert (clone / "bundle" / "output" / "train" / "model.pt").is_file()
    assert sorted(path.name for path in clone.iterdir()) == ["bundle"]
    assert list((tmp_path / "cwd").iterdir()) == []


def test_absolute_config_needs_no_bundle_root(dataset, run, root, tmp_path):
    clone = tmp_path / "clone"
    shutil.copytree(root / "bundle", clone, ignore=shutil.ignore_patterns("data", "output", "models"))
    shutil.copytree(dataset, clone / "data" / "demo")
    config = clone / "configs" / "train.json"
    start = ("--encoder_weights", "None")
    status, _, stderr = run(
        *BUNDLE, "training", "--config_file", config, *FAST, "--max_epochs", 1, *start, cwd=tmp_path
    )
    assert status == 0, stderr
    assert (clone / "output" / "train" / "model.pt").is_file()


def test_evaluation_agrees_with_counts_of_pixels(trained, dataset, run, root, tmp_path):
    output = tmp_path / "scores"
    configs = "['bundle/configs/train.json','bundle/configs/evaluate.json']"
    status, _, stderr = run(
        *BUNDLE, "--config_file", configs, "--dataset_dir", dataset, "--checkpoint", trained / "model.pt",
        "--output_dir", output, *FAST, "--overlap", 0,
    )  # fmt: skip
    assert status == 0, stderr
    measured = json.loads((output / "run.json").read_text())["metrics"]
    expected = scores_by_hand(trained / "model.pt", dataset)
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    # these have tests of their own against their reference implementation
    assert measured.keys() - expected.keys() == {
        "val_structure_measure", "val_alignment_measure", "val_weighted_f_measure",
    }  # fmt: skip
    table = (output / "val_mean_dice_raw.csv").read_text().splitlines()
    assert len(table) == 1 + len([t for t in tiles_of(dataset) if t["split"] == "test"])


def tiles_of(dataset):
    return json.loads((dataset / "manifest.json").read_text())["tiles"]


def scores_by_hand(weights, dataset):
    """The metrics of counts and errors in plain numpy, means over images; codes 0 and 7 count in nothing."""
    network = LightMuSeg(encoder_weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    rows = []
    for tile in tiles_of(dataset):
        if tile["split"] != "test":
            continue
        image = np.asarray(Image.open(dataset / tile["image"])) / 255
        codes = np.asarray(Image.open(dataset / tile["mask"]))
        image = ((image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)[None]
        with torch.no_grad():
            probability = network(torch.from_numpy(image).float()).sigmoid().numpy()[0, 0]
        valid = ~np.isin(codes, (0, 7))
        truth, found = (codes == 1)[valid], (probability >= 0.5)[valid]
        rows.append([(truth & found).sum(), (~truth & found).sum(), (truth & ~found).sum(),
                     np.abs(probability[valid] - truth).mean(), valid.sum()])  # fmt: skip
    hit, false, missed, error, pixels = np.array(rows, dtype=float).T
    with np.errstate(invalid="ignore"):
        dice = np.where(hit + false + missed > 0, 2 * hit / (2 * hit + false + missed), 1)
        iou = np.where(hit + false + missed > 0, hit / (hit + false + missed), 1)
        sensitivity = hit / (hit + missed)
    return {
        "val_mean_dice": dice.mean(),
        "val_mean_iou": iou.mean(),
        "val_sensitivity": np.nanmean(sensitivity),
        "val_pooled_dice": 2 * hit.sum() / (2 * hit + false + missed).sum(),
        "val_pooled_iou": hit.sum() / (hit + false + missed).sum(),
        "val_pixel_accuracy": 1 - (false + missed).sum() / pixels.sum(),
        "val_mae": error.mean(),
    }
