"""Random numbers that depend on the epoch alone."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.utils.data import Dataset


class EpochSeed:
    """Seed every generator with ``seed + epoch`` at the start of each epoch.

    So a training that is resumed after an epoch goes on with the shuffles and augmentations it would have had.

    Args:
        seed: of epoch 0.
        dataset: the training dataset, whose random transforms are seeded too.
    """

    def __init__(self, seed: int, dataset: Dataset) -> None:
        self.seed = seed
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + engine.state.epoch
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
