"""Random numbers that depend on the epoch alone."""

from __future__ import annotations

import random
from dataclasses import dataclass

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.utils.data import Dataset

from lightmuseg.data.distributed_sampler import DistributedBatchSampler

RANK_STRIDE = 1_000_003


@dataclass(eq=False)
class EpochSeed:
    """Seed every generator with ``seed + epoch`` at the start of each epoch.

    So a training that is resumed after an epoch goes on with the shuffles and augmentations it would have had. Of
    several processes each has random numbers of its own; what they must agree on, the order of the tiles, a
    :class:`.DistributedBatchSampler` draws by itself, from the epoch that it gets here.

    Args:
        seed: of epoch 0.
        dataset: the training dataset, whose random transforms are seeded too.
    """

    seed: int
    dataset: Dataset

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        batches = getattr(engine.data_loader, "batch_sampler", None)
        if isinstance(batches, DistributedBatchSampler):
            batches.set_epoch(engine.state.epoch)
        # far apart, so that no process repeats another's augmentations of an earlier epoch
        seed = self.seed + engine.state.epoch + RANK_STRIDE * idist.get_rank()
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed)
