"""The average of a network's weights over the steps of its training."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine, Events
from torch.optim.swa_utils import AveragedModel

from lightmuseg.errors import InputError


class WeightAverage:
    """Keep an exponential moving average of a network's weights, updated after each step of its training.

    The average of step n is ``m * average + (1 - m) * weights`` with ``m = min(momentum, (1 + n) / (10 + n))``, n from
    0, so that the first steps do not stay in it; that of step 0 is the weights alone. Means and variances of batch
    normalisation are averaged alike.

    Args:
        network: that is trained.
        momentum: 0 for no average.

    Attributes:
        averaged: the network that holds the average; ``network`` itself where there is none.

    Raises:
        InputError: for a momentum outside [0, 1).

    Reference:
        Tarvainen and Valpola, Mean teachers are better role models, NeurIPS 2017; the warm-up is TensorFlow's
        ``ExponentialMovingAverage``.
    """

    def __init__(self, network: torch.nn.Module, momentum: float) -> None:
        if type(momentum) not in (int, float) or not 0 <= momentum < 1:
            raise InputError(f"--weight_average {momentum}: give a number from 0 (none) to below 1, such as 0.99.")
        self.network, self.momentum = network, momentum
        self._model = AveragedModel(network, avg_fn=self._average, use_buffers=True) if momentum else None
        self.averaged: torch.nn.Module = network if self._model is None else self._model.module

    def attach(self, engine: Engine) -> None:
        if self._model is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        """Add the weights as they are now."""
        if self._model is not None:
            self._model.update_parameters(self.network)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of its steps; empty where there is none."""
        return {} if self._model is None else self._model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        if self._model is not None:
            self._model.load_state_dict(state)

    def weights_in(self, state: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The weights to use of a training's state: the average, where it has one, else the network's."""
        prefix = "module."
        average = {key: value for key, value in state.get("average", {}).items() if key.startswith(prefix)}
        return {key.removeprefix(prefix): value for key, value in average.items()} or state["network"]

    def _average(self, average: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor | int) -> torch.Tensor:
        if not average.is_floating_point():
            return weights
        n = int(steps)
        return weights.lerp(average, min(self.momentum, (1 + n) / (10 + n)))
