"""Trainings that cannot succeed end in one line: before they start, or when their loss shows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from ignite.engine import Engine, Events

from lightmuseg.errors import InputError

from .checkpoint import loss_of

# Above it no optimizer of PyTorch learns anything.
MAX_LEARNING_RATE = 10.0
# A loss is exploded that is so many times the first one, or 1 where that is less.
EXPLODED = 100.0


def require_trainable(learning_rate: Any, weight_decay: Any) -> None:
    """Refuse a learning rate or a weight decay that is no number, or by which nothing can be learnt.

    Raises:
        InputError: for those.
    """
    for name, value, most in ("learning_rate", learning_rate, MAX_LEARNING_RATE), ("weight_decay", weight_decay, 1.0):
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise InputError(f"--{name} {value}: give a number from 0 to {most:g}, such as 0.001.")
    if learning_rate == 0:
        raise InputError("--learning_rate 0: nothing would be learnt; give a number above it, such as 0.001.")


@dataclass(eq=False)
class FiniteLoss:
    """Stop a training whose loss or weights are no numbers any more, or whose loss explodes.

    It would go on for hours and keep nothing, since means and variances of batch normalisation stay spoilt. Attach it
    before what validates and writes, so that the files keep what was learnt until then.

    Args:
        network: whose weights are looked at after each epoch.
        optimizer: whose learning rate is named.

    Raises:
        InputError: when it stops.
    """

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    _limit: float | None = field(default=None, init=False)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._check_weights)

    def _check_loss(self, engine: Engine) -> None:
        loss = loss_of(engine.state.output)
        if loss is None:
            return
        if not math.isfinite(loss):
            self._stop(engine, f"the loss is {loss}")
        if self._limit is None:
            self._limit = EXPLODED * max(1.0, loss)
        if loss > self._limit:
            self._stop(engine, f"the loss is {loss:g}, {EXPLODED:g} times what it started with or more")

    def _check_weights(self, engine: Engine) -> None:
        if not all(torch.isfinite(value).all() for value in self.network.state_dict().values()):
            self._stop(engine, f"weights are not finite, and the last loss was {loss_of(engine.state.output)}")

    def _stop(self, engine: Engine, what: str) -> None:
        rate, state = self.optimizer.param_groups[0]["lr"], engine.state
        raise InputError(
            f"training stopped in epoch {state.epoch}, iteration {state.iteration}: {what}, at a learning rate of "
            f"{rate:g}; give a smaller --learning_rate with another --output_dir. What was written before is kept."
        )
