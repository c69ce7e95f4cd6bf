import errno
import os
import re
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler, from_engine
from monai.metrics import DiceMetric
from monai.transforms import Activationsd, AsDiscreted, Compose, RandFlipd, RandGaussianNoised
from monai.utils import set_determinism
from torch import nn
from torch.utils.data import WeightedRandomSampler
from training_history import history, without_seconds

from lightmuseg.errors import InputError
from lightmuseg.handlers import (
    CosineSchedule,
    EpochSeed,
    FiniteLoss,
    Progress,
    TrainingCheckpoint,
    WeightAverage,
    WeightsLoader,
    require_trainable,
)
from lightmuseg.losses import StructureLoss

OPTIONS = {"learning_rate": 0.01, "seed": 42, "classes": {"tumor": [1]}}


class Training:
    """A tiny training with the handlers of the bundle's train.json; ``scores`` replaces what validation measures."""

    def __init__(
        self, folder, epochs, keep="best", options=OPTIONS, interval=1, scores=None, channels=4, workers=0, recipe=False
    ):
        set_determinism(seed=42)
        generator = torch.Generator().manual_seed(7)
        images = torch.rand(8, 1, 8, 8, generator=generator)
        items = [{"image": image, "label": (image > 0.6).float()} for image in images]
        augmenting = Compose([RandFlipd(["image", "label"], prob=0.5), RandGaussianNoised("image", prob=0.8, std=0.2)])
        dataset = Dataset(items[:5], augmenting)
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.Dropout2d(0.3), nn.Conv2d(channels, 1, 1)
        )
        optimizer = torch.optim.Adam(self.network.parameters(), lr=0.01, weight_decay=1e-4)
        self.average = WeightAverage(self.network, 0.9 if recipe else 0)
        self.evaluator = SupervisedEvaluator(
            device=torch.device("cpu"),
            val_data_loader=DataLoader(Dataset(items[5:]), batch_size=1),
            network=self.average.averaged,
            postprocessing=Compose([Activationsd("pred", sigmoid=True), AsDiscreted("pred", threshold=0.5)]),
            key_val_metric={
                "val_mean_dice": IgniteMetricHandler(DiceMetric(), output_transform=from_engine(["pred", "label"]))
            },
        )
        if scores is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self.set_score, scores)
        self.checkpoint = TrainingCheckpoint(
            folder, self.network, optimizer, self.evaluator, options, "val_mean_dice", keep, average=self.average
        )
        # as epoch_tiles draws them
        sampler = WeightedRandomSampler([1.0, 1, 1, 3, 3], 6) if recipe else None
        self.trainer = SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=epochs,
            train_data_loader=DataLoader(
                dataset, batch_size=2, shuffle=not recipe, sampler=sampler, num_workers=workers
            ),
            network=self.network,
            optimizer=optimizer,
            loss_function=StructureLoss(window=3),
            train_handlers=[
                EpochSeed(42, dataset),
                *([CosineSchedule(optimizer, 0.2)] if recipe else []),
                FiniteLoss(self.network, optimizer),
                ValidationHandler(interval=interval, validator=self.evaluator, epoch_level=True),
                self.checkpoint,
                Progress("training", self.evaluator),
            ],
        )
        self.weights_by_epoch = {}
        self.trainer.add_event_handler(Events.EPOCH_COMPLETED, self.remember)

    def set_score(self, evaluator, scores):
        evaluator.state.metrics["val_mean_dice"] = scores[evaluator.state.epoch - 1]

    def remember(self, trainer):
        self.weights_by_epoch[trainer.state.epoch] = {k: v.clone() for k, v in self.network.state_dict().items()}

    def run(self):
        self.trainer.run()
        return self


def load(path):
    return torch.load(path, weights_only=True)


def same(weights, others):
    assert weights.keys() == others.keys()
    return all(torch.equal(weights[name], others[name]) for name in weights)


def contents(folder):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def assert_equal_trainings(folder, other):
    last, expected = load(folder / "last.pt"), load(other / "last.pt")
    assert same(last["network"], expected["network"])
    assert same(last.get("average", {}), expected.get("average", {}))
    assert last["best"] == expected["best"]
    assert last["epoch"] == expected["epoch"]
    torch.testing.assert_close(last["optimizer"], expected["optimizer"], rtol=0, atol=0)
    assert same(load(folder / "model.pt"), load(other / "model.pt"))
    assert without_seconds(history(folder)) == without_seconds(history(other))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a training of 4 epochs in one go."""
    folder = tmp_path_factory.mktemp("whole")
    Training(folder, 4).run()
    return folder


def test_training_in_one_go_writes_three_files(whole):
    assert sorted(path.name for path in whole.iterdir()) == ["last.pt", "metrics.csv", "model.pt"]
    rows = history(whole)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert {row["learning_rate"] for row in rows} == {"0.01"}
    assert len({row["loss"] for row in rows}) == 4
    assert all(0 <= float(row["val_mean_dice"]) <= 1 for row in rows)


def test_history_holds_the_mean_loss_of_the_epoch(tmp_path):
    training = Training(tmp_path, 2)
    losses = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(float(engine.state.output[0]["loss"]))
    )
    training.run()
    assert len(losses) == 6
    expected = [sum(losses[:3]) / 3, sum(losses[3:]) / 3]
    assert [float(row["loss"]) for row in history(tmp_path)] == pytest.approx(expected)


def test_epochs_differ_in_their_random_numbers(tmp_path):
    training = Training(tmp_path, 3)
    seen = []
    training.trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: seen.append(sum(sample["image"].sum().item() for sample in engine.state.batch)),
    )
    training.run()
    assert len(set(seen)) == len(seen)


def test_training_stopped_after_an_epoch_ends_as_one_in_one_go(tmp_path, whole):
    Training(tmp_path, 2).run()
    assert load(tmp_path / "last.pt")["epoch"] == 2
    Training(tmp_path, 4).run()
    assert_equal_trainings(tmp_path, whole)


def test_training_killed_within_an_epoch_ends_as_one_in_one_go(tmp_path, whole):
    killed = Training(tmp_path, 4)

    @killed.trainer.on(Events.ITERATION_COMPLETED(once=8))
    def kill(engine):
        assert engine.state.epoch == 3
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed.run()
    assert load(tmp_path / "last.pt")["epoch"] == 2
    resumed = Training(tmp_path, 4).run()
    assert sorted(resumed.weights_by_epoch) == [3, 4]
    assert_equal_trainings(tmp_path, whole)


def test_resuming_with_worker_processes_ends_as_in_one_go(tmp_path):
    Training(tmp_path / "whole", 2, workers=1).run()
    Training(tmp_path / "halves", 1, workers=1).run()
    Training(tmp_path / "halves", 2, workers=1).run()
    assert_equal_trainings(tmp_path / "halves", tmp_path / "whole")


@pytest.mark.parametrize("stop", [4, 6, 8])
def test_training_with_average_schedule_and_sampling_resumes_bit_for_bit(tmp_path, stop):
    """Killed in its second or third epoch of three steps, or between them."""
    Training(tmp_path / "whole", 4, keep="last", recipe=True).run()
    killed = Training(tmp_path / "killed", 4, keep="last", recipe=True)

    @killed.trainer.on(Events.ITERATION_COMPLETED(once=stop))
    def kill(engine):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed.run()
    resumed = Training(tmp_path / "killed", 4, keep="last", recipe=True).run()
    assert_equal_trainings(tmp_path / "killed", tmp_path / "whole")
    rates = [float(row["learning_rate"]) for row in history(tmp_path / "killed")]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.1 * rates[0]
    assert same(load(tmp_path / "killed" / "model.pt"), resumed.average.averaged.state_dict())
    assert not same(load(tmp_path / "killed" / "model.pt"), load(tmp_path / "killed" / "last.pt")["network"])


def test_validation_is_of_the_average(tmp_path):
    training = Training(tmp_path, 2, recipe=True)
    for bias, share in (20.0, 1), (-20.0, 0):
        with torch.no_grad():
            training.average.averaged[3].bias.fill_(bias)
            training.network[3].bias.fill_(-bias)
        training.evaluator.run()
        assert all(item["pred"].mean() == share for item in training.evaluator.state.output)


def test_a_damaged_model_is_written_anew_with_the_average(tmp_path):
    Training(tmp_path, 2, keep="last", recipe=True).run()
    weights = load(tmp_path / "model.pt")
    (tmp_path / "model.pt").unlink()
    Training(tmp_path, 2, keep="last", recipe=True).run()
    assert same(load(tmp_path / "model.pt"), weights)


def test_options_of_a_later_version_that_are_off_are_no_fault(tmp_path):
    Training(tmp_path, 1).run()
    Training(tmp_path, 2, options={**OPTIONS, "weight_average": 0.0, "epoch_tiles": None, "sample_weights": {}}).run()
    with pytest.raises(InputError, match=r"weight_average=0.0, not 0.9"):
        Training(tmp_path, 2, options={**OPTIONS, "weight_average": 0.9}).run()


def test_finished_training_run_again_changes_nothing(tmp_path):
    Training(tmp_path, 2).run()
    before = contents(tmp_path)
    again = Training(tmp_path, 2).run()
    assert contents(tmp_path) == before
    assert not again.weights_by_epoch
    assert same(again.network.state_dict(), load(tmp_path / "last.pt")["network"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"learning_rate": 0.1}, "learning_rate=0.01, not 0.1"),
        ({"classes": {"stroma": [2]}}, "classes"),
        ({"x": 1}, "x="),
    ],
    ids=str,
)
def test_other_options_are_refused_by_name(tmp_path, change, name):
    Training(tmp_path, 1).run()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=name):
        Training(tmp_path, 2, options={**OPTIONS, **change}).run()
    assert contents(tmp_path) == before


def test_other_network_is_refused_by_its_keys(tmp_path):
    Training(tmp_path, 1).run()
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"last.pt.*0.weight is \(4, 1, 3, 3\), not \(5, 1, 3, 3\)"):
        Training(tmp_path, 2, channels=5).run()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_checkpoint_is_refused_and_kept(tmp_path, share):
    Training(tmp_path, 1).run()
    last = tmp_path / "last.pt"
    last.write_bytes(last.read_bytes()[: int(share * last.stat().st_size)])
    before = contents(tmp_path)
    with pytest.raises(InputError, match="last.pt: is (empty|damaged).*move it away to train anew"):
        Training(tmp_path, 2).run()
    assert contents(tmp_path) == before


def test_checkpoint_with_another_bit_is_refused_and_kept(tmp_path):
    Training(tmp_path, 1).run()
    last = tmp_path / "last.pt"
    content = bytearray(last.read_bytes())
    weight = load(last)["network"]["0.weight"].numpy().tobytes()
    content[content.index(weight) + 3] ^= 1
    last.write_bytes(content)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="last.pt: is damaged .*move it away to train anew"):
        Training(tmp_path, 2).run()
    assert contents(tmp_path) == before


def test_other_file_in_the_checkpoints_place_is_refused(tmp_path):
    torch.save({"weight": torch.ones(1)}, tmp_path / "last.pt")
    with pytest.raises(InputError, match="last.pt: not a checkpoint"):
        Training(tmp_path, 1).run()


@pytest.mark.parametrize(("keep", "kept"), [("best", 2), ("last", 4)])
def test_model_holds_the_epoch_to_keep(tmp_path, keep, kept):
    training = Training(tmp_path, 4, keep=keep, scores=[0.2, 0.9, 0.5, 0.9]).run()
    model = load(tmp_path / "model.pt")
    assert [epoch for epoch, weights in training.weights_by_epoch.items() if same(model, weights)] == [kept]
    assert training.checkpoint.best == {"value": 0.9, "epoch": 2}


def test_best_survives_a_resume(tmp_path):
    scores = [0.2, 0.9, 0.5, 0.8]
    first = Training(tmp_path, 2, scores=scores).run()
    second = Training(tmp_path, 4, scores=scores).run()
    assert second.checkpoint.best == {"value": 0.9, "epoch": 2}
    assert same(load(tmp_path / "model.pt"), first.weights_by_epoch[2])


def test_score_that_is_no_number_is_never_the_best_of_several(tmp_path):
    training = Training(tmp_path, 3, scores=[float("nan"), 0.1, float("nan")]).run()
    assert training.checkpoint.best == {"value": 0.1, "epoch": 2}
    assert same(load(tmp_path / "model.pt"), training.weights_by_epoch[2])


def test_while_no_score_is_a_number_the_latest_weights_are_kept(tmp_path):
    training = Training(tmp_path, 3, scores=[float("nan")] * 3).run()
    assert training.checkpoint.best["epoch"] == 0
    assert same(load(tmp_path / "model.pt"), training.weights_by_epoch[3])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_best_weights_that_are_damaged_are_not_lost_in_silence(tmp_path):
    scores = [0.2, 0.9, 0.5, 0.95]
    best = Training(tmp_path, 3, scores=scores).run().weights_by_epoch[2]
    whole = (tmp_path / "model.pt").read_bytes()
    cut(tmp_path / "model.pt")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"model.pt: is damaged.*best weights, of epoch 2, .*put a copy of it back"):
        Training(tmp_path, 4, scores=scores).run()
    assert contents(tmp_path) == before
    (tmp_path / "model.pt").write_bytes(whole)
    Training(tmp_path, 3, scores=scores).run()
    assert same(load(tmp_path / "model.pt"), best)


def test_best_weights_that_were_deleted_are_said_and_the_next_best_are_kept(tmp_path, caplog):
    scores = [0.2, 0.9, 0.5, 0.4]
    Training(tmp_path, 3, scores=scores).run()
    (tmp_path / "model.pt").unlink()
    resumed = Training(tmp_path, 4, scores=scores).run()
    assert (
        "model.pt: is gone with the best weights, of epoch 2; written anew with the weights of epoch 3" in caplog.text
    )
    assert resumed.checkpoint.best == {"value": 0.4, "epoch": 4}
    assert same(load(tmp_path / "model.pt"), resumed.weights_by_epoch[4])


@pytest.mark.parametrize("keep", ["best", "last"])
@pytest.mark.parametrize("spoil", [cut, Path.unlink])
def test_a_damaged_model_is_written_anew_where_the_checkpoint_has_its_weights(tmp_path, caplog, keep, spoil):
    scores = [0.2, 0.9] if keep == "best" else [0.9, 0.2]
    weights = Training(tmp_path, 2, keep=keep, scores=scores).run().weights_by_epoch[2]
    spoil(tmp_path / "model.pt")
    Training(tmp_path, 2, keep=keep, scores=scores).run()
    assert same(load(tmp_path / "model.pt"), weights)
    assert "written anew with the weights of epoch 2, from last.pt" in caplog.text


def loss_becomes(training, iteration, value):
    @training.trainer.on(Events.ITERATION_COMPLETED(once=iteration))
    def spoil(engine):
        engine.state.output[0]["loss"] = torch.tensor(value)

    # before the handlers of the training
    handlers = training.trainer._event_handlers[Events.ITERATION_COMPLETED]
    handlers.insert(0, handlers.pop())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_a_loss_that_is_no_number_or_explodes_stops_the_training(tmp_path, value):
    scores = [0.9, 0.2, 0.95]
    best = Training(tmp_path, 2, scores=scores).run().weights_by_epoch[1]
    training = Training(tmp_path, 3, scores=scores)
    # three iterations an epoch
    loss_becomes(training, 8, value)
    said = r"\Atraining stopped in epoch 3, iteration 8: the loss is (nan|inf|10000, 100 times)[^\n]* of 0.01; give a"
    with pytest.raises(InputError, match=said + r" smaller --learning_rate[^\n]*\Z"):
        training.run()
    assert same(load(tmp_path / "model.pt"), best)
    assert load(tmp_path / "last.pt")["epoch"] == 2


def test_weights_that_are_no_numbers_are_never_written(tmp_path):
    training = Training(tmp_path, 2)

    @training.trainer.on(Events.ITERATION_COMPLETED(once=3))
    def spoil(engine):
        with torch.no_grad():
            training.network[0].weight.fill_(float("nan"))

    with pytest.raises(InputError, match="epoch 1, iteration 3: weights are not finite"):
        training.run()
    assert list(tmp_path.iterdir()) == []


def test_a_learning_rate_that_is_too_high_stops_the_training_by_itself(tmp_path):
    training = Training(tmp_path, 3)
    training.checkpoint.optimizer.param_groups[0]["lr"] = 1e30
    with pytest.raises(InputError, match=r"training stopped in epoch 1, .* learning rate of 1e\+30"):
        training.run()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value", [-1, 0, float("nan"), float("inf"), 1e30, "fast", "0.001", None, True, [0.1]], ids=str
)
def test_a_learning_rate_that_cannot_be_is_refused_in_one_line(value):
    with pytest.raises(InputError, match=rf"\A--learning_rate {re.escape(str(value))}: [^\n]*give a number"):
        require_trainable(value, 1e-4)
    if value != 0:
        with pytest.raises(InputError, match=r"\A--weight_decay [^\n]*give a number"):
            require_trainable(1e-3, value)


def test_learning_rates_that_can_be_are_taken():
    for value in (1e-6, 0.001, 1, 10.0):
        require_trainable(value, 0)


def test_epochs_without_validation_have_no_metric_and_are_not_the_best(tmp_path):
    training = Training(tmp_path, 3, interval=2, scores=[None, 0.4, None]).run()
    assert [row["val_mean_dice"] for row in history(tmp_path)] == ["", "0.4", ""]
    assert same(load(tmp_path / "model.pt"), training.weights_by_epoch[2])


def test_unknown_keep_is_refused(tmp_path):
    with pytest.raises(InputError, match="keep='x'.*best, last"):
        Training(tmp_path, 1, keep="x")


@pytest.mark.parametrize("name", ["model.pt", "last.pt"])
def test_full_disk_leaves_the_former_files(tmp_path, monkeypatch, name):
    Training(tmp_path, 1, keep="last").run()
    before = contents(tmp_path)
    write_bytes = Path.write_bytes

    def full(path, content):
        if path.name.endswith(name):
            write_bytes(path, bytes(content)[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        Training(tmp_path, 2, keep="last").run()
    after = contents(tmp_path)
    assert after.keys() == before.keys()
    assert after[name] == before[name]
    assert after["last.pt"] == before["last.pt"]


def test_training_goes_on_after_the_disk_has_space_again(tmp_path, monkeypatch, whole):
    Training(tmp_path, 2).run()
    with monkeypatch.context() as patch:

        def full(path, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left on device"):
            Training(tmp_path, 4).run()
    Training(tmp_path, 4).run()
    assert_equal_trainings(tmp_path, whole)


def test_weights_loader_loads_a_trainings_model_when_the_engine_starts(tmp_path):
    weights = Training(tmp_path, 1).run().weights_by_epoch[1]
    other = Training(tmp_path / "other", 1)
    WeightsLoader(tmp_path / "model.pt", other.network).attach(other.trainer)
    other.trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: engine.terminate())
    assert not same(other.network.state_dict(), weights)
    other.trainer.run()
    assert same(other.network.state_dict(), weights)


def test_weights_loader_leaves_side_heads_out_and_nothing_else(tmp_path):
    network = nn.Linear(2, 1)
    weights = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    torch.save({**weights, "side_heads.0.weight": torch.ones(3)}, tmp_path / "deep.pt")
    WeightsLoader(tmp_path / "deep.pt", network)()
    assert same(network.state_dict(), weights)
    torch.save({**weights, "head.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="other.pt.*head.weight is not known"):
        WeightsLoader(tmp_path / "other.pt", network)()
