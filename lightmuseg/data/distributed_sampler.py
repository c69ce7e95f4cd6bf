"""Which tiles each of several processes takes."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.utils.data import Sampler, WeightedRandomSampler

from lightmuseg.errors import InputError

Tiles = TypeVar("Tiles", bound=Sized)


class DistributedBatchSampler(Sampler[list[int]]):
    """One process's batches of an epoch in which several processes together see each tile exactly once.

    The processes average their gradients after each step, so all must take the same number of steps, or the last ones
    wait for ever. PyTorch's ``DistributedSampler`` reaches that by showing some tiles twice or leaving some out;
    MONAI's with ``even_divisible=False`` does neither and gives unequal numbers of steps. Here the epoch's shuffled
    tiles are cut into as many batches as there are steps times processes, whose sizes differ by one at most: few are
    a tile smaller than ``batch_size``, and where there are too few tiles for a last step, some are greater.

    The order depends on seed and epoch alone, so a step sees about the same tiles however many processes share it.

    Args:
        dataset: its length counts.
        batch_size: tiles of one process in a step.
        seed: of epoch 0.
        processes, rank: of the process group; None asks it.
        sampler: draws the tiles of an epoch, in place of each tile once.

    Raises:
        InputError: where there are fewer tiles than processes, or ``batch_size`` is below 1.
    """

    def __init__(
        self,
        dataset: Sized,
        batch_size: int,
        seed: int,
        processes: int | None = None,
        rank: int | None = None,
        sampler: WeightedRandomSampler | None = None,
    ) -> None:
        self.processes = processes or dist.get_world_size()
        self.rank = dist.get_rank() if rank is None else rank
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: must be at least 1.")
        self.sampler = sampler
        self.tiles = len(enough_for_all(dataset if sampler is None else sampler, self.processes))
        self.seed = seed
        self.epoch = 0
        self.steps = min(-(-self.tiles // (batch_size * self.processes)), self.tiles // self.processes)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle as epoch ``epoch`` does from the next iteration on."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        if self.sampler is None:
            order = torch.randperm(self.tiles, generator=generator).tolist()
        else:
            self.sampler.generator = generator
            order = list(self.sampler)
        batches = self.steps * self.processes
        for batch in range(self.rank, batches, self.processes):
            yield order[batch * self.tiles // batches : (batch + 1) * self.tiles // batches]


def enough_for_all(dataset: Tiles, processes: int | None = None) -> Tiles:
    """The dataset, where it has a tile for each process at least.

    Args:
        dataset: to share.
        processes: how many share it; None asks the process group.

    Raises:
        InputError: where it has fewer.
    """
    processes = processes or dist.get_world_size()
    if len(dataset) < processes:
        raise InputError(f"{len(dataset)} tiles are too few for {processes} processes; start fewer (--nproc_per_node).")
    return dataset
