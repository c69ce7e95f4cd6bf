"""Training speed from disk: the bundle against a plain PyTorch loop of the same network.

    python scripts/benchmark/training.py --dataset bundle/data/bcss [OPTIONS]

The first batch, with which allocators and kernels warm up, is not counted. tiles/s is from files on disk to updated
weights. Writes docs/benchmarks/training.*.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import figures
import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.bundle import ConfigParser
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lightmuseg.data import load_tiles
from lightmuseg.losses import StructureLoss
from lightmuseg.networks import LightMuSeg

TRAIN = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "train.json"
PLAIN = "plain"
MEMORY = ("peak RAM GB", "peak GPU GB")
# Ways to train, and what they change in train.json; plain is no bundle.
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "bundle": {"amp": False},
    "bundle, mixed precision": {"amp": True},
    "bundle, encoder frozen (V1), mixed precision": {"amp": True, "freeze_encoder": True},
}
MEAN, DEVIATION = (torch.tensor(values)[:, None, None] for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


class PlainTiles(Dataset):
    """Tiles as anyone would write them: Pillow, one affine grid, brightness, normalisation."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        item = self.items[index]
        image = torch.from_numpy(np.array(Image.open(item["image"]))).permute(2, 0, 1).float() / 255
        codes = torch.from_numpy(np.array(Image.open(item["label"])))
        mask = (codes == 1).float().masked_fill((codes == 0) | (codes == 7), 255)[None]
        angle, scale = torch.rand(1) * 2 * torch.pi, 0.75 + 0.5 * torch.rand(1)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        shift = (torch.rand(2) - 0.5) / 2
        theta = torch.stack([cos, -sin, shift[:1], sin, cos, shift[1:]]).reshape(1, 2, 3)
        grid = F.affine_grid(theta, [1, 3, *image.shape[1:]], align_corners=False)
        options = {"padding_mode": "reflection", "align_corners": False}
        image = F.grid_sample(image[None], grid, **options)[0]
        mask = F.grid_sample(mask[None], grid, mode="nearest", **options)[0]
        for axis in (1, 2):
            if torch.rand(1) < 0.5:
                image, mask = image.flip(axis), mask.flip(axis)
        return (image * (0.8 + 0.4 * torch.rand(1)) - MEAN) / DEVIATION, mask


def train_plain(items: list[dict[str, Any]], batch_size: int, workers: int, done: Callable[[], None]) -> None:
    """One epoch of the network in a plain PyTorch loop; ``done`` is called after every batch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = LightMuSeg(encoder_weights=None).to(device).train()
    optimizer, loss_function = torch.optim.Adam(network.parameters(), 1e-3, weight_decay=1e-4), StructureLoss()
    for image, mask in DataLoader(PlainTiles(items), batch_size, shuffle=True, num_workers=workers):
        optimizer.zero_grad()
        loss_function(network(image.to(device)), mask.to(device)).backward()
        optimizer.step()
        done()


def train_bundle(
    dataset: str, batch_size: int, workers: int, tiles: int, options: dict[str, Any], done: Callable[[], None]
) -> None:
    """One epoch of the bundle's trainer without validation and files."""
    config = ConfigParser()
    config.read_config(TRAIN)
    config.update({"dataset_dir": dataset, "encoder_weights": None, "batch_size": batch_size, "num_workers": workers})
    config.update({"max_epochs": 1, "train#handlers": [], **options})
    config["train"]["dataset"]["data"] = load_tiles(dataset, "train")[:tiles]
    trainer = config.get_parsed_content("train#trainer")
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: done())
    trainer.run()


def measure(way: str, dataset: str, tiles: int, batch_size: int, workers: int) -> figures.Row:
    """Tiles/s, seconds until the first batch was learnt from, and peak memory in GB, of one way in this process."""
    times = [time.perf_counter()]

    def done() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    if way == PLAIN:
        train_plain(load_tiles(dataset, "train")[:tiles], batch_size, workers, done)
    else:
        train_bundle(dataset, batch_size, workers, tiles, WAYS[way], done)
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6
    gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    rate = (tiles - batch_size) / (times[-1] - times[1])
    return {"tiles/s": rate, "start s": times[1] - times[0], **dict(zip(MEMORY, (peak, gpu)))}


def tables(session: figures.Row) -> list[str]:
    """Markdown of a session."""
    lines = [["way", "loader processes", "tiles/s", "over plain", "seconds to the first batch", *MEMORY]]
    for count in dict.fromkeys(row["workers"] for row in session["rows"]):
        ways = figures.by_way(row for row in session["rows"] if row["workers"] == count)
        for way, some in ways.items():
            over = figures.spread(figures.ratios(some, ways.get(PLAIN, []), "tiles/s"), 2)
            cells = [figures.column(some, name) for name in ("start s", *MEMORY)]
            lines.append([way, count, figures.column(some, "tiles/s", 2), over, *cells])
    return [figures.table(lines)]


def benchmark(
    dataset: str, tiles: int = 24, batch_size: int = 3, rounds: int = 3, workers: str = "0", ways: str = "",
    output: str = str(figures.DOCS),
) -> None:  # fmt: skip
    """Run every way in turn.

    Args:
        dataset: a prepared dataset with at least TILES training tiles.
        tiles: a run trains on.
        batch_size: of a run.
        rounds: runs of each way.
        workers: numbers of loader processes to try, with semicolons between.
        ways: names of the ways to try, with semicolons between; by default all.
        output: folder of the figures.
    """
    given = {"dataset": dataset, "tiles": tiles, "batch_size": batch_size}
    rows = []
    for count in map(int, str(workers).split(";")):
        calls = {
            way: partial(figures.in_a_process, __file__, way=way, workers=count, **given)
            for way in figures.chosen(ways, WAYS)
        }
        rows += [{"workers": count, **row} for row in figures.in_turns(calls, rounds)]
    options = {"tiles": tiles, "batches of": batch_size, "rounds": rounds}
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    figures.publish("training", tables, rows, options, output, device=gpu)


if __name__ == "__main__":
    figures.command_line(benchmark, measure)
