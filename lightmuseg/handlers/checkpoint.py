"""Keep a training on disk: its state, its best weights, its history."""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from lightmuseg.errors import InputError
from lightmuseg.models.card import ModelCard, card_of, save_model
from lightmuseg.networks.saved import read_saved, write_saved
from lightmuseg.networks.weights import check_fit, load_weights, read_state_dict
from lightmuseg.text_files import write_csv

from .processes import by_first
from .weight_average import WeightAverage

logger = logging.getLogger(__name__)
KEEP = ("best", "last")


def loss_of(output: Any) -> float | None:
    """The loss in an engine's output, decollated or not; None where it has none."""
    first = output[0] if isinstance(output, list) else output
    return float(torch.as_tensor(first["loss"]).detach()) if "loss" in first else None


class WeightsLoader:
    """Load a network's weights when an engine starts, and refuse a file that does not fit by naming what differs.

    Args:
        path: a state dict, such as the ``model.pt`` of a training.
        network: to load it into; left-out side heads of deep supervision are no fault.
    """

    def __init__(self, path: str | Path, network: torch.nn.Module) -> None:
        self.path, self.network = path, network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        load_weights(self.network, self.path)


class TrainingCheckpoint:
    """Write ``last.pt`` (everything a resume needs), ``model.pt`` (weights to use) and ``metrics.csv`` every epoch.

    A training that is started again in the same folder goes on after the last epoch there. Each file is replaced
    whole; MONAI's ``CheckpointSaver`` removes the old best before it writes the new one. Attach it behind the
    handler that validates. Of several processes the first reads and writes, and the loss is the mean over the batches
    of all; their number may be another when a training is resumed.

    Args:
        output_dir: folder of the three files.
        network, optimizer: whose state is kept.
        evaluator: the validation engine; its metrics go into the history.
        options: plain values that must be the same when a training is resumed.
        metric: the name, among the evaluator's metrics, that "best" means the highest of.
        keep: "best": ``model.pt`` holds the epoch with the highest metric; "last": the latest epoch.
        card: what ``model.pt`` says of itself; the metric of its epoch is added.
        average: of the network's weights, which ``model.pt`` then holds and ``last.pt`` keeps beside them; it is
            attached with this.
    """

    def __init__(
        self,
        output_dir: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        evaluator: Engine,
        options: dict[str, Any],
        metric: str,
        keep: str = "best",
        card: ModelCard | None = None,
        average: WeightAverage | None = None,
    ) -> None:
        if keep not in KEEP:
            raise InputError(f"keep={keep!r} is not known; one of {', '.join(KEEP)}.")
        self.output_dir = Path(output_dir)
        self.network = network
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.options = options
        self.metric = metric
        self.keep = keep
        self.card = card
        self.average = average or WeightAverage(network, 0)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, float] = {"value": -math.inf, "epoch": 0}
        self._losses: list[float] = []
        self._started = 0.0

    def attach(self, engine: Engine) -> None:
        self.average.attach(engine)
        engine.add_event_handler(Events.STARTED, self.resume)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def resume(self, engine: Engine) -> None:
        """Load ``last.pt`` where there is one.

        Raises:
            InputError: where the folder holds a training with other options, or the file is broken.
        """
        state = by_first(self._read)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state.get("average", {}))
        if state["scaler"] is not None and getattr(engine, "scaler", None) is not None:
            engine.scaler.load_state_dict(state["scaler"])
        self.history, self.best = state["history"], state["best"]
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * engine.state.epoch_length
        if idist.get_rank() > 0:
            return
        if state["epoch"] >= engine.state.max_epochs:
            logger.info("%s: trained for %d epochs already; nothing to do.", self.output_dir, state["epoch"])
        else:
            logger.info("%s: resuming after epoch %d of %d", self.output_dir, state["epoch"], engine.state.max_epochs)

    def _read(self) -> dict[str, Any] | None:
        path = self.output_dir / "last.pt"
        if not path.is_file():
            return None
        state = _read_checkpoint(path)
        for name in sorted(state["options"].keys() | self.options.keys()):
            before, now = state["options"].get(name), self.options.get(name)
            # what a later version brought and is off
            if before != now and (before or now):
                raise InputError(
                    f"{self.output_dir}: holds a training with {name}={before}, not {now}; "
                    "choose another --output_dir, or give the same options to resume it."
                )
        check_fit(self.network.state_dict(), state["network"], path)
        self._save_best(state)
        return state

    def _save_best(self, state: dict[str, Any]) -> None:
        """See that ``model.pt`` is whole; where it is not, write it anew if these are the weights that ``last.pt`` has.

        Raises:
            InputError: where the best weights are damaged and nowhere else.
        """
        path, best = self.output_dir / "model.pt", state["best"]
        fault = f"{path}: is gone"
        if path.is_file():
            try:
                weights = read_state_dict(path)
                check_fit(self.network.state_dict(), weights, path)
                if self.card is not None and card_of(weights, path) is None:
                    # of an earlier version, which wrote none
                    save_model(path, weights, self.card)
                return
            except InputError as error:
                fault = str(error).removesuffix(".")
        lost = self.keep == "best" and best["epoch"] not in (0, state["epoch"])
        if lost and path.is_file():
            raise InputError(
                f"{fault}. It held the best weights, of epoch {best['epoch']}, which are nowhere else: put a copy "
                "of it back; or delete it to go on without them."
            )
        if lost:
            state["best"] = {"value": -math.inf, "epoch": 0}
            fault += f" with the best weights, of epoch {best['epoch']}"
        logger.warning("%s; written anew with the weights of epoch %d, from last.pt.", fault, state["epoch"])
        self._write_model(self.average.weights_in(state), state["history"])

    def _start_epoch(self, engine: Engine) -> None:
        self._losses = []
        self._started = time.monotonic()

    def _add_loss(self, engine: Engine) -> None:
        self._losses.append(loss_of(engine.state.output))

    def save(self, engine: Engine) -> None:
        """Add the epoch to the history and write the three files."""
        epoch = engine.state.epoch
        # each of several processes took as many steps
        loss = idist.all_reduce(sum(self._losses) / len(self._losses)) / idist.get_world_size()
        row = {
            "epoch": epoch,
            "loss": loss,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._started, 2),
        }
        # MONAI's ValidationHandler gives the evaluator the trainer's epoch
        validated = getattr(self.evaluator.state, "metrics", {}) if self._validated(engine) else {}
        row.update({name: float(value) for name, value in validated.items()})
        self.history.append(row)

        if validated and self.metric not in validated:
            raise InputError(f"metric={self.metric!r} is not among the evaluator's: {', '.join(validated)}.")
        value = row.get(self.metric, math.nan)
        better = value > self.best["value"]
        if better:
            self.best = {"value": value, "epoch": epoch}
        # until a validation gives a number the latest weights are the best known
        by_first(lambda: self._write(engine, better or self.keep == "last" or self.best["epoch"] == 0))

    def _write(self, engine: Engine, to_use: bool) -> None:
        if to_use:
            self._write_model(self.average.averaged.state_dict(), self.history)
        scaler = getattr(engine, "scaler", None)
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
            "epoch": engine.state.epoch,
            "history": self.history,
            "best": self.best,
            "options": self.options,
        }
        if self.average.state_dict():
            state["average"] = self.average.state_dict()
        # the table first: what last.pt holds is written out already when a kill falls between the two
        write_csv(self.output_dir / "metrics.csv", self.history)
        write_saved(self.output_dir / "last.pt", state)

    def _write_model(self, weights: dict[str, torch.Tensor], history: list[dict[str, Any]]) -> None:
        path = self.output_dir / "model.pt"
        if self.card is None:
            write_saved(path, weights)
            return
        value = history[-1].get(self.metric, math.nan)
        figures = {self.metric: value} if math.isfinite(value) else {}
        save_model(path, weights, dataclasses.replace(self.card, figures=figures))

    def _validated(self, engine: Engine) -> bool:
        return getattr(self.evaluator.state, "epoch", 0) == engine.state.epoch


def _read_checkpoint(path: Path) -> dict[str, Any]:
    state = read_saved(path, "copy it again, or move it away to train anew")
    if not isinstance(state, dict) or not {"network", "optimizer", "epoch", "options"} <= state.keys():
        raise InputError(f"{path}: not a checkpoint of this training; move it away to train anew.")
    return state
