"""Several processes train and evaluate as one: two of them, by gloo on the CPU."""

import json
import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_history import history, without_seconds

from lightmuseg.losses import StructureLoss

pytestmark = pytest.mark.training

FAST = {"tile_size": 64, "batch_size": 2, "num_workers": 0, "encoder_weights": None}
BUNDLE = ("python", "-m", "monai.bundle", "run")
LAUNCHER = ("python", "-m", "torch.distributed.run", "--nproc_per_node", 2, *BUNDLE[1:])
# A network so small that a plain loop retraces its training, and a note of each tile that a process trains on.
SMALL = {
    "imports": ["$import os", "$import pathlib", "$import sys", "$import torch.distributed"],
    "network_def": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 5, "padding": 2},
    "augmenting": [],
    "+train#handlers": [{"_target_": "seen_tiles.SeenTiles", "folder": "@output_dir"}],
}
SEEN_TILES = """
import os
from pathlib import Path
from ignite.engine import Events


class SeenTiles:
    def __init__(self, folder):
        self.path = Path(folder) / f"seen-{os.environ.get('LOCAL_RANK', 0)}.txt"

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine):
        state = engine.state
        step = (state.iteration - 1) % state.epoch_length
        with open(self.path, "a", encoding="utf-8") as file:
            for tile in state.batch:
                print(state.epoch, step, int(tile["x"]), int(tile["y"]), tile["roi"], file=file)
"""


def words(command, configs, **options):
    """A command with configs of the bundle, or elsewhere, and options."""
    paths = [str(config) if isinstance(config, Path) else f"bundle/configs/{config}.json" for config in configs]
    given = [word for key, value in {**FAST, **options}.items() for word in (f"--{key}", value)]
    return [*command, "--config_file", str(paths), *given]


def trained_words(processes, output, dataset, *more, **options):
    """The command of a training by one process or by two."""
    command, configs = (LAUNCHER, ["train", "multi_gpu_train"]) if processes == 2 else (BUNDLE, ["train"])
    return words([*command, "training"], [*configs, *more], output_dir=output, dataset_dir=dataset, **options)


def with_tiles(dataset, target, split, number):
    """A copy of the dataset with the first ``number`` tiles of a split."""
    shutil.copytree(dataset, target)
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    left_out = [tile for tile in manifest["tiles"] if tile["split"] == split][number:]
    manifest["tiles"] = [tile for tile in manifest["tiles"] if tile not in left_out]
    (target / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return target


@pytest.fixture(scope="module")
def odd(dataset, tmp_path_factory):
    """A dataset of eleven tiles to train on, which two processes cannot share evenly."""
    return with_tiles(dataset, tmp_path_factory.mktemp("odd") / "dataset", "train", 11)


@pytest.fixture(scope="module")
def trained(run, odd, tmp_path_factory):
    """The output of a training of the paper's network by two processes."""
    output = tmp_path_factory.mktemp("two processes") / "output"
    status, _, stderr = run(*trained_words(2, output, odd, max_epochs=2, learning_rate=0.01), timeout=600)
    assert status == 0, stderr[-3000:]
    return output, stderr


@pytest.fixture(scope="module")
def small(root, tmp_path_factory):
    """The override of the small network, and the environment it needs."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.json").write_text(json.dumps(SMALL), encoding="utf-8")
    (folder / "seen_tiles.py").write_text(SEEN_TILES, encoding="utf-8")
    return folder / "small.json", {"PYTHONPATH": os.pathsep.join(map(str, (root, folder)))}


@pytest.fixture(scope="module")
def resumed(run, odd, small, tmp_path_factory):
    """A training of two epochs by two processes, then one by one, then one by two; and the histories in between."""
    output, (config, environment) = tmp_path_factory.mktemp("resumed"), small
    histories = []
    for processes, epochs in ((2, 2), (1, 3), (2, 4)):
        command = trained_words(processes, output, odd, config, max_epochs=epochs, batch_size=1)
        status, _, stderr = run(*command, timeout=600, **environment)
        assert status == 0, stderr[-3000:]
        histories.append(history(output))
    return output, histories


def steps_seen(output):
    """{epoch: {step: [each process's tiles (region, x, y)]}}."""
    steps = {}
    for path in sorted(output.glob("seen-*.txt")):
        of_process = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            epoch, step, x, y, region = line.split(" ", 4)
            of_process.setdefault((int(epoch), int(step)), []).append((region, int(x), int(y)))
        for (epoch, step), tiles in of_process.items():
            steps.setdefault(epoch, {}).setdefault(step, []).append(tiles)
    return steps


def train_tiles(dataset):
    tiles = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))["tiles"]
    return {(tile["roi"], tile["x"], tile["y"]): tile for tile in tiles if tile["split"] == "train"}


def test_every_tile_is_seen_once_an_epoch(resumed, odd):
    epochs = steps_seen(resumed[0])
    assert sorted(epochs) == [1, 2, 3, 4]
    for epoch, steps in epochs.items():
        processes = 1 if epoch == 3 else 2
        assert {len(tiles_of) for tiles_of in steps.values()} == {processes}, "a process that waits for another"
        seen = Counter(tile for tiles_of in steps.values() for tiles in tiles_of for tile in tiles)
        assert seen == Counter(train_tiles(odd).keys())
    assert len({str(epochs[epoch]) for epoch in (1, 2, 4)}) == 3


def test_weights_are_those_of_a_plain_loop_over_the_steps_of_all_processes(resumed, odd):
    torch.manual_seed(0)
    output, histories = resumed
    tiles = train_tiles(odd)
    network, loss_function = torch.nn.Conv2d(3, 1, 5, padding=2), StructureLoss()
    network.load_state_dict(first_weights())
    optimizer = torch.optim.Adam(network.parameters(), lr=0.001, weight_decay=1e-4)
    losses = []
    for _, steps in sorted(steps_seen(output).items()):
        losses.append([])
        for _, tiles_of in sorted(steps.items()):
            batches = [[sample(odd, tiles[tile]) for tile in of_process] for of_process in tiles_of]
            each = [loss_function(network(torch.stack(x)), torch.stack(y)) for x, y in (zip(*b) for b in batches)]
            optimizer.zero_grad()
            torch.stack(each).mean().backward()
            optimizer.step()
            losses[-1] += [loss.item() for loss in each]
    weights = torch.load(output / "last.pt", weights_only=True)["network"]
    torch.testing.assert_close(weights, dict(network.state_dict()), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(weights["weight"], first_weights()["weight"], atol=1e-3)
    expected = [sum(values) / len(values) for values in losses]
    assert [float(row["loss"]) for row in histories[-1]] == pytest.approx(expected, rel=1e-5)


def first_weights():
    """What the bundle's seed gives the small network before its training."""
    torch.manual_seed(42)
    return torch.nn.Conv2d(3, 1, 5, padding=2).state_dict()


def sample(dataset, tile):
    """A tile as the network sees it, [3, H, W], and its tumor, [1, H, W], 255 where nothing is annotated."""
    image = np.asarray(Image.open(dataset / tile["image"])) / 255
    codes = np.asarray(Image.open(dataset / tile["mask"]))
    image = ((image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)
    label = np.where(np.isin(codes, (0, 7)), 255, codes == 1)[None]
    return torch.from_numpy(image).float(), torch.from_numpy(label).float()


def test_training_goes_on_with_another_number_of_processes(resumed):
    output, (two, three, four) = resumed
    assert [row["epoch"] for row in four] == ["1", "2", "3", "4"]
    assert (two, three) == (four[:2], four[:3])
    assert torch.load(output / "last.pt", weights_only=True)["epoch"] == 4
    assert json.loads((output / "run.json").read_text())["processes"] == 2


def test_metrics_are_those_of_one_process_with_the_weights_that_were_written(trained, run, odd, tmp_path):
    output, _ = trained
    options = {"dataset_dir": odd, "output_dir": tmp_path, "checkpoint": output / "model.pt", "val_split": "val"}
    status, _, stderr = run(*words(BUNDLE, ["train", "evaluate"], **options), timeout=600)
    assert status == 0, stderr[-3000:]
    alone = json.loads((tmp_path / "run.json").read_text())["metrics"]
    best = torch.load(output / "last.pt", weights_only=True)["best"]["epoch"]
    row = history(output)[best - 1]
    together = {name: float(value) for name, value in row.items() if name.startswith("val_")}
    assert together == pytest.approx({name: alone[name] for name in together}, abs=1e-5, nan_ok=True)


def test_one_process_writes(trained):
    output, stderr = trained
    names = sorted("events" if path.name.startswith("events") else path.name for path in output.iterdir())
    # one file of the trainer's handler and one of each of the evaluator's two, as of one process
    assert names == ["events", "events", "events", "last.pt", "metrics.csv", "model.pt", "run.json"]
    record = json.loads((output / "run.json").read_text())
    assert (record["processes"], record["epochs"]) == (2, 2)
    assert stderr.count("epoch 2 of 2") == 1
    assert "100%" in stderr
    assert "22/22" in stderr


def test_names_of_the_weights_are_those_of_one_process(trained, weights):
    expected = torch.load(weights, weights_only=True)
    assert list(torch.load(trained[0] / "model.pt", weights_only=True)) == list(expected)


def test_killed_worker_ends_the_job_and_the_same_command_finishes_it(run, preloaded, odd, small, root, tmp_path):
    output, (config, environment) = tmp_path / "output", small
    command = trained_words(2, output, odd, config, max_epochs=12)
    with open(tmp_path / "said.txt", "w") as said:
        launcher = preloaded.start(
            [*map(str, command[1:])], str(root), {**os.environ, **environment}, said.fileno(), said.fileno()
        )
    deadline = time.monotonic() + 120
    while launcher.poll() is None and time.monotonic() < deadline:
        if (output / "metrics.csv").is_file() and len(history(output)) >= 2:
            break
        time.sleep(0.01)
    workers = {rank: worker_of(launcher.pid, rank) for rank in (0, 1)}
    os.kill(workers[1], signal.SIGKILL)
    launcher.wait(timeout=300)
    stderr = (tmp_path / "said.txt").read_text()
    done = len(history(output))
    assert 2 <= done < 12
    assert launcher.returncode not in (0, None)
    assert f"Signal 9 (SIGKILL) received by PID {workers[1]}" in stderr
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())

    before = history(output)
    status, _, stderr = run(*command, timeout=600, **environment)
    assert status == 0, stderr[-3000:]
    assert stderr.count("resuming after epoch") == 1
    again = history(output)
    assert [row["epoch"] for row in again] == [str(epoch) for epoch in range(1, 13)]
    # its last epoch may have been written out before its state was, and is then trained again
    assert again[: done - 1] == before[:-1]
    assert without_seconds(again[:done]) == without_seconds(before)
    assert not list(output.glob(".*"))


def worker_of(launcher, rank):
    """The process that the launcher started as ``rank``."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    found = [pid for pid in children if f"\0LOCAL_RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text()]
    assert len(found) == 1, children
    return int(found[0])


@pytest.mark.parametrize("fault", ["broken state", "other options", "sync_batch_norm", "too few tiles"])
def test_fault_ends_both_processes_with_one_line(fault, run, resumed, odd, dataset, small, tmp_path):
    config, environment = small
    output = tmp_path / "output"
    options, says = {"max_epochs": 5, "batch_size": 1}, "last.pt: is damaged"
    shutil.copytree(resumed[0], output)
    if fault == "broken state":
        (output / "last.pt").write_bytes((output / "last.pt").read_bytes()[:1000])
    elif fault == "other options":
        options, says = {**options, "learning_rate": 0.5}, "learning_rate=0.001, not 0.5"
    elif fault == "sync_batch_norm":
        options, says = {**options, "sync_batch_norm": True}, "--sync_batch_norm True: works on GPUs only"
    else:
        odd = with_tiles(dataset, tmp_path / "dataset", "val", 1)
        says = "1 tiles are too few for 2 processes"
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    status, _, stderr = run(*trained_words(2, output, odd, config, **options), timeout=600, **environment)
    assert status != 0
    (line,) = [line for line in stderr.splitlines() if line.startswith("lightmuseg: error:")]
    assert says in line
    # only the launcher's own
    assert stderr.count("Traceback (most recent call last)") == 1
    after = {path.name: path.read_bytes() for path in output.iterdir() if not path.name.startswith("events")}
    assert after == {name: content for name, content in before.items() if not name.startswith("events")}


def test_two_processes_give_the_metrics_of_one(run, dataset, weights, tmp_path):
    results = {}
    for processes, more in ((1, []), (2, ["multi_gpu_evaluate"])):
        output = tmp_path / str(processes)
        options = {"dataset_dir": dataset, "checkpoint": weights, "output_dir": output}
        command = words(LAUNCHER if more else BUNDLE, ["train", "evaluate", *more], **options)
        status, _, stderr = run(*command, timeout=600)
        assert status == 0, stderr[-3000:]
        record = json.loads((output / "run.json").read_text())
        assert record["processes"] == processes
        results[processes] = record["metrics"]
        details = (output / "val_weighted_f_measure_raw.csv").read_text().splitlines()
        results[f"{processes} details"] = sorted(details[1:])
    assert results[1].keys() == results[2].keys()
    assert results[2] == pytest.approx(results[1], abs=1e-6)
    assert [row.split(",")[0] for row in results["1 details"]] == [row.split(",")[0] for row in results["2 details"]]
