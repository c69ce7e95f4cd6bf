from collections import Counter

import pytest
import torch
from torch.utils.data import WeightedRandomSampler

from lightmuseg.data.distributed_sampler import DistributedBatchSampler, enough_for_all
from lightmuseg.errors import InputError

CASES = [
    (tiles, batch_size, processes)
    for tiles in (1, 2, 3, 7, 8, 12, 13, 31, 100)
    for batch_size in (1, 2, 3, 8)
    for processes in (1, 2, 3, 4, 8)
    if tiles >= processes
]


def batches(tiles, batch_size, processes, epoch=1, seed=42):
    """Each process's batches of an epoch."""
    samplers = [DistributedBatchSampler(range(tiles), batch_size, seed, processes, rank) for rank in range(processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_tile_is_taken_once_in_steps_that_all_processes_take(case):
    tiles, batch_size, processes = case
    ranks = batches(*case)
    assert Counter(tile for rank in ranks for batch in rank for tile in batch) == Counter(range(tiles))
    steps = {len(rank) for rank in ranks}
    assert steps == {len(DistributedBatchSampler(range(tiles), batch_size, 42, processes, 0))}
    sizes = [len(batch) for rank in ranks for batch in rank]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    # a greater batch only where another step would leave a process without a tile
    assert max(sizes) <= batch_size or processes * (max(steps) + 1) > tiles


def test_processes_share_what_a_sampler_draws():
    drawn = []
    for processes in 1, 2, 3:
        ranks = []
        for rank in range(processes):
            sampler = WeightedRandomSampler([0.0, 1.0, 3.0, 0.0], 24)
            ranks.append(DistributedBatchSampler(range(4), 2, 42, processes, rank, sampler))
            ranks[-1].set_epoch(3)
            # whatever was drawn elsewhere in the process
            torch.rand(rank + 1)
        batches = [list(rank) for rank in ranks]
        assert len({len(rank) for rank in batches}) == 1
        drawn.append([tile for step in zip(*batches) for batch in step for tile in batch])
    assert drawn[0] == drawn[1] == drawn[2]
    assert set(drawn[0]) == {1, 2}
    assert len(drawn[0]) == 24
    ranks[0].set_epoch(4)
    assert [tile for batch in ranks[0] for tile in batch] != [tile for batch in batches[0] for tile in batch]


def test_order_of_the_tiles_is_the_same_for_every_number_of_processes():
    orders = []
    for processes, batch_size in ((1, 6), (1, 1), (2, 3), (3, 2), (4, 2)):
        ranks = batches(25, batch_size, processes)
        orders.append([tile for step in zip(*ranks, strict=True) for batch in step for tile in batch])
    assert all(order == orders[0] for order in orders)
    assert sorted(orders[0]) == list(range(25)) != orders[0]


def test_two_processes_together_take_the_steps_of_one_with_a_double_batch():
    (one,), two = batches(24, 4, 1), batches(24, 2, 2)
    assert one == [first + second for first, second in zip(*two, strict=True)]


def test_epochs_and_seeds_differ_and_an_epoch_taken_again_does_not():
    assert batches(30, 2, 2, epoch=3) == batches(30, 2, 2, epoch=3)
    assert batches(30, 2, 2, epoch=3) != batches(30, 2, 2, epoch=4)
    assert batches(30, 2, 2, seed=1) != batches(30, 2, 2, seed=2)


def test_fewer_tiles_than_processes_are_refused():
    with pytest.raises(InputError, match="3 tiles are too few for 4 processes"):
        DistributedBatchSampler(range(3), 1, 42, processes=4, rank=0)
    tiles = range(4)
    assert enough_for_all(tiles, 4) is tiles


def test_batch_of_nothing_is_refused():
    with pytest.raises(InputError, match="batch_size=0"):
        DistributedBatchSampler(range(3), 0, 42, processes=1, rank=0)
