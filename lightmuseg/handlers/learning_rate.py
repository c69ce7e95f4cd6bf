"""A learning rate that rises and falls in the course of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from ignite.engine import Engine, Events

from lightmuseg.errors import InputError

FINAL_SHARE = 0.01


@dataclass(eq=False)
class CosineSchedule:
    """Raise the learning rate linearly to the optimizer's own, then let it fall along a cosine to FINAL_SHARE of it.

    The rate is a function of the step alone, so that a training which is resumed goes on with the rates it would have
    had, as long as its number of epochs stays the same.

    Args:
        optimizer: whose rates are set before each step.
        warm_up: share of all steps in which the rate rises.

    Raises:
        InputError: for a share outside [0, 1).

    Reference:
        Loshchilov and Hutter, SGDR, ICLR 2017, with one period.
    """

    optimizer: torch.optim.Optimizer
    warm_up: float = 0.0

    def __post_init__(self) -> None:
        if type(self.warm_up) not in (int, float) or not 0 <= self.warm_up < 1:
            raise InputError(f"--warm_up {self.warm_up}: give a share of the training from 0 to below 1, such as 0.08.")

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        step = engine.state.iteration - 1
        factor = self.factor(step, engine.state.max_epochs * engine.state.epoch_length)
        for group in self.optimizer.param_groups:
            # the optimizer's state keeps it, so a resumed training knows it too
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor

    def factor(self, step: int, steps: int) -> float:
        """The share of its own learning rate that the optimizer takes in a step.

        >>> schedule = CosineSchedule(torch.optim.SGD([torch.zeros(1)]), warm_up=0.2)
        >>> [round(schedule.factor(step, 10), 3) for step in (0, 1, 2, 6)]
        [0.5, 1.0, 1.0, 0.505]
        """
        rising = self.warm_up * steps
        if step < rising:
            return min(1.0, (step + 1) / rising)
        progress = (step - rising) / (steps - rising)
        return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * progress))
