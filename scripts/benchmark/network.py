"""Time the network alone, by every runtime: python scripts/benchmark/network.py IMAGE --model MODEL [OPTIONS].

On tiles of 512x512 cut from IMAGE, real tissue. Ratios are to the eager, unfolded network in float32 in the same run.
Beside them the floor: what the folded network's multiplications and bytes take at the rates that one kernel of each
kind reaches on this machine. Writes docs/benchmarks/network.*.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import figures
import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightmuseg import Model
from lightmuseg.networks import fold
from lightmuseg.runtimes import (
    KINDS,
    NormalisedNetwork,
    Runtime,
    RuntimeInfo,
    int8_folder,
    make_runtime,
    torch_runtime,
)
from lightmuseg.wsi.images import read_rgb

TILE = 512
UNETS = ("mobilenet_v2", "resnet34", "resnet50")
EAGER = "eager, as published"
RATES = ("tiles/s in batches", "tiles/s one by one")


def network_of(model: str) -> nn.Module:
    """The trained network at its own resolution."""
    return Model.open(model).network(output_stride=2)


def unet(backbone: str) -> nn.Module:
    """A U-Net of random weights, which cost as much as trained ones."""
    from lightmuseg.networks.torchvision_operators import declare_missing_operators

    declare_missing_operators()
    import segmentation_models_pytorch as smp

    return smp.Unet(backbone, encoder_weights=None, classes=1).eval()


def tiles_of(image: str, count: int) -> np.ndarray:
    """The tiles with most structure: uint8 [count, 512, 512, 3]."""
    pixels = read_rgb(image)
    height, width = pixels.shape[:2]
    corners = [(y, x) for y in range(0, height - TILE + 1, TILE) for x in range(0, width - TILE + 1, TILE)]
    tiles = sorted((pixels[y : y + TILE, x : x + TILE] for y, x in corners), key=lambda tile: -tile.std())
    return np.resize(np.stack(tiles[:count]), (count, TILE, TILE, 3))


def published(network: nn.Module, device: str) -> Runtime:
    """The network as its authors run it: unfolded, eager, float32, PyTorch's default layout of memory."""
    module = NormalisedNetwork(network).to(device).eval()

    def call(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            normalised = module.normalised(torch.from_numpy(tiles).to(device)).contiguous()
            return module.network(normalised).cpu().numpy()

    return Runtime.of(call, TILE, RuntimeInfo(EAGER, device, "float32"))


def measure(way: str, image: str, model: str, batch_size: int, device: str, seconds: float) -> figures.Row:
    """The figures of one way in this process."""
    tiles = tiles_of(image, batch_size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    if way == EAGER:
        runtime = published(network_of(model), device)
    elif way in KINDS:
        runtime = make_runtime(network_of(model), way, TILE, batch_size, device, device != "cpu", int8_folder(model))
    else:
        runtime = torch_runtime(unet(way.removeprefix("U-Net ")), TILE, device)
    runtime(tiles)
    start = time.perf_counter() - started
    batched, single = (_seconds_a_tile(runtime, some, seconds) for some in (tiles, tiles[:1]))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    found = dict(zip(RATES, (1 / batched, 1 / single)))
    found |= {"latency ms": 1000 * single, "start s": start, "memory MiB": grown}
    if way in KINDS or way == EAGER:
        same = runtime.compared(torch_runtime(network_of(model), TILE), tiles_of(image, 8)).parity
        found |= {"error": same.error, "changed": same.changed, "passes": same.passes}
    if device != "cpu":
        found["GPU memory MiB"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def _seconds_a_tile(runtime: Callable[[np.ndarray], np.ndarray], tiles: np.ndarray, seconds: float) -> float:
    runtime(tiles)
    times: list[float] = []
    started = time.perf_counter()
    while not times or time.perf_counter() - started < seconds:
        times.append(figures.seconds_of(lambda: runtime(tiles)) / len(tiles))
    return statistics.median(times)


def floor(model: str) -> dict[str, float]:
    """FLOPs and bytes of a tile by the folded network, the rates of one kernel of each kind, and tiles/s by them."""
    network = NormalisedNetwork(fold(network_of(model)))
    tiles = torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8)
    moved = [sum(parameter.nbytes for parameter in network.parameters())]
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(lambda m, given, made: moved.append(given[0].nbytes + made.nbytes))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(tiles)
    flops = counter.get_total_flops()
    matrix, block = torch.rand(2048, 2048), torch.rand(1 << 26)
    copied = torch.empty_like(block)
    flop_rate = 2 * 2048**3 / min(figures.seconds_of(lambda: matrix @ matrix) for _ in range(8))
    byte_rate = 2 * block.nbytes / min(figures.seconds_of(lambda: copied.copy_(block)) for _ in range(8))
    return {
        "GFLOP": flops / 1e9, "MB": sum(moved) / 1e6, "GFLOP/s": flop_rate / 1e9, "GB/s": byte_rate / 1e9,
        "tiles/s by FLOPs": flop_rate / flops, "tiles/s by bytes": byte_rate / sum(moved),
    }  # fmt: skip


def tables(session: figures.Row) -> list[str]:
    """Markdown of a session."""
    ways = figures.by_way(session["rows"])
    rows = [["way", *RATES, "times eager", "latency, ms", "memory, MiB", "largest error", "pixels of another class"]]
    for way, runs in ways.items():
        best, eager = ([max(run[kind] for kind in RATES) for run in some] for some in (runs, ways.get(EAGER, [])))
        times = [one / other for one, other in zip(best, eager)]
        proof = ["", ""]
        if "error" in runs[0]:
            refused = "" if runs[0]["passes"] else ", **refused**"
            proof = [f"{runs[0]['error']:.1e}", f"{runs[0]['changed']:.2%}{refused}"]
        rows.append([
            way, *(figures.column(runs, kind) for kind in RATES), figures.spread(times, 2),
            figures.column(runs, "latency ms", 0), int(max(run["memory MiB"] for run in runs)), *proof,
        ])  # fmt: skip
    least = session["floor"]
    return [
        figures.table(rows),
        f"Floor: a tile takes {least['GFLOP']:.1f} GFLOP and moves {least['MB']:.0f} MB between layers; a large matrix "
        f"product reaches {least['GFLOP/s']:.0f} GFLOP/s and a copy {least['GB/s']:.1f} GB/s, so "
        f"{least['tiles/s by FLOPs']:.0f} tiles/s by arithmetic and {least['tiles/s by bytes']:.0f} by memory.",
    ]


def benchmark(
    image: str, model: str, rounds: int = 5, batch_size: int = 4, device: str = "cpu", ways: str = "",
    seconds: float = 4.0, output: str = str(figures.DOCS),
) -> None:  # fmt: skip
    """Time every way in turns.

    Args:
        image: of tissue at 0.25 um per pixel.
        model: weights, with the INT8 that 'lightmuseg quantize' made beside them.
        rounds: of all ways.
        batch_size: tiles at once.
        device: cpu, or cuda:0.
        ways: names of those to time, with semicolons between; else all.
        seconds: that each way is timed, in batches and one by one.
        output: folder of the figures.
    """
    known = [EAGER, *(kind for kind in KINDS if device.split(":")[0] in KINDS[kind].devices)]
    known += [f"U-Net {backbone}" for backbone in UNETS]
    given = {"image": image, "model": model, "batch_size": batch_size, "device": device, "seconds": seconds}
    rows = figures.in_turns(
        {way: partial(figures.in_a_process, __file__, way=way, **given) for way in figures.chosen(ways, known)}, rounds
    )
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    options = {"image": Path(image).name, "batches of": batch_size, "rounds": rounds, "threads": threads}
    gpu = "" if device == "cpu" else torch.cuda.get_device_name(device)
    figures.publish("network", tables, rows, options, output, model, gpu, floor=floor(model))


if __name__ == "__main__":
    figures.command_line(benchmark, measure)
