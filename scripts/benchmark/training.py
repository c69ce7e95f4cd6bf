"""Training speed from disk: the bundle against a plain PyTorch loop of the same network, and where the time goes.

    python scripts/benchmark/training.py --dataset bundle/data/bcss --output docs/benchmarks/training_cpu.md

Every way runs in a process of its own, in turn, several rounds; the first batch, with which allocators and kernels
warm up, is not counted. tiles/s is from files on disk to updated weights. Times of single steps are of one thread.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Events
from monai.bundle import ConfigParser
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from lightmuseg.data import load_tiles
from lightmuseg.files import write_whole
from lightmuseg.losses import StructureLoss
from lightmuseg.networks import LightMuSeg
from lightmuseg.provenance import environment

TRAIN = Path(__file__).resolve().parents[2] / "bundle" / "configs" / "train.json"
# Ways to train, and what they change in train.json; "plain" is no bundle.
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
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


def measure(way: str, dataset: str, tiles: int, batch_size: int, workers: int) -> dict[str, float]:
    """Tiles/s, seconds until the first batch was learnt from, and peak memory in GB, of one way in this process."""
    times = [time.perf_counter()]

    def done() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    if way == "plain":
        train_plain(load_tiles(dataset, "train")[:tiles], batch_size, workers, done)
    else:
        train_bundle(dataset, batch_size, workers, tiles, WAYS[way], done)
    counted = tiles - batch_size
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1e6
    gpu = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
    return {"tiles/s": counted / (times[-1] - times[1]), "start s": times[1] - times[0], "RAM GB": peak, "GPU GB": gpu}


def steps(dataset: str, tiles: int = 12) -> dict[str, list[float]]:
    """Milliseconds a tile of each step of the training's preprocessing, and of reading other kinds of file."""
    torch.set_num_threads(1)
    config = ConfigParser()
    config.read_config(TRAIN)
    config.update({"dataset_dir": dataset, "encoder_weights": None, "blur_probability": 1.0, "colour_range": 0.2})
    items: list[Any] = load_tiles(dataset, "train")[:tiles]
    times = {}
    for transform in config.get_parsed_content("train#preprocessing").transforms:
        name = f"{type(transform).__name__} ({', '.join(transform.keys)})"
        times[name], items = _each(transform, items)
    with tempfile.TemporaryDirectory() as folder:
        for ending, options in ((".png", {}), (".tif", {}), (".jpg", {"quality": 95}), (".webp", {"lossless": True})):
            paths = []
            for number, item in enumerate(load_tiles(dataset, "train")[:tiles]):
                paths.append(Path(folder) / f"{number}{ending}")
                Image.open(item["image"]).save(paths[-1], **options)
            size = statistics.fmean(path.stat().st_size for path in paths) / 1e3
            loss = ", lossy" if ending == ".jpg" else ""
            times[f"decoding a tile as {ending} ({size:.0f} kB{loss})"], _ = _each(_decoded, paths)
    return times


def _decoded(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def _each(step: Callable[[Any], Any], items: Iterable[Any]) -> tuple[list[float], list[Any]]:
    times, results = [], []
    for item in items:
        started = time.perf_counter()
        results.append(step(item))
        times.append(1000 * (time.perf_counter() - started))
    return times, results


def benchmark(
    dataset: str,
    output: str,
    tiles: int = 24,
    batch_size: int = 3,
    rounds: int = 3,
    workers: str = "0",
    ways: str = "",
) -> None:
    """Run every way in turn and write a Markdown page.

    Args:
        dataset: a prepared dataset with at least TILES training tiles.
        output: the page.
        tiles: a run trains on.
        batch_size: of a run.
        rounds: runs of each way.
        workers: numbers of loader processes to try, with commas between.
        ways: numbers of the ways to try, from 0, with commas between; by default all.
    """
    chosen = [list(WAYS)[int(number)] for number in _numbers(ways)] or list(WAYS)
    runs: dict[tuple[str, int], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for count in _numbers(workers):
            for way in chosen:
                arguments = ["--way", way, "--dataset", dataset, "--tiles", tiles, "--batch_size", batch_size]
                command = [sys.executable, "-W", "ignore", __file__, "one", *map(str, [*arguments, "--workers", count])]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs.setdefault((way, count), []).append(json.loads(done.stdout.splitlines()[-1]))
                print(way, count, runs[way, count][-1], flush=True)
    command = [sys.executable, "-W", "ignore", __file__, "steps", "--dataset", dataset]
    single = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    write_whole(output, lambda path: path.write_text(_page(runs, single, tiles, batch_size), encoding="utf-8"))


def _numbers(text: Any) -> list[int]:
    parts = text if isinstance(text, (tuple, list)) else str(text).split(",")
    return [int(part) for part in parts if str(part).strip()]


def _spread(values: list[float], digits: int = 2) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _page(
    runs: dict[tuple[str, int], list[dict[str, float]]], single: dict[str, list[float]], tiles: int, batch_size: int
) -> str:
    made = environment()
    hardware = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.processor() or 'x86-64'})"
    )
    lines = [
        f"{hardware}, {os.cpu_count()} cores, torch {torch.__version__}, lightmuseg {made['lightmuseg']} "
        f"({made['commit']}). Medians (least to most) of {len(next(iter(runs.values())))} runs of {tiles} tiles, "
        f"batches of {batch_size}.",
        "",
        "| way | loader processes | tiles/s | over plain | seconds to the first batch | peak RAM GB | peak GPU GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for (way, count), measured in runs.items():
        columns = {key: [run[key] for run in measured] for key in measured[0]}
        plain = runs.get(("plain", count))
        ratio = "" if plain is None else f"{_ratio(columns['tiles/s'], [run['tiles/s'] for run in plain]):.2f}"
        cells = [
            _spread(columns["tiles/s"]),
            ratio,
            *(_spread(columns[key], 1) for key in ("start s", "RAM GB", "GPU GB")),
        ]
        lines.append(f"| {way} | {count} | " + " | ".join(cells) + " |")
    lines += ["", "| step, one thread | ms a tile |", "|---|---|"]
    lines += [f"| {name} | {_spread(times)} |" for name, times in single.items()]
    return "\n".join(lines) + "\n"


def _ratio(ours: list[float], plain: list[float]) -> float:
    """Median of the ratios of runs of one round."""
    return statistics.median(mine / other for mine, other in zip(ours, plain))


if __name__ == "__main__":
    COMMANDS = {
        "one": lambda **options: print(json.dumps(measure(**options))),
        "steps": lambda **options: print(json.dumps(steps(**options))),
    }
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        fire.Fire(COMMANDS)
    else:
        fire.Fire(benchmark)
