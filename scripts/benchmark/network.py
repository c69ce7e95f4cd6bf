"""Time the network alone, by every runtime: python scripts/benchmark/network.py IMAGE --model MODEL [OPTIONS].

On tiles of 512x512 cut from IMAGE, real tissue. Each measurement is a process of its own, the ways take turns, and
ratios are to the eager, unfolded network in float32 in the same run. Beside them the floor: what the folded network's
multiplications and bytes take at the rates that one kernel of each kind reaches here. Writes docs/benchmarks/network.*.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from figures import DOCS, processor, publish, spread, table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightmuseg.networks import LightMuSeg, fold
from lightmuseg.networks.weights import load_weights
from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import (
    KINDS,
    NormalisedNetwork,
    Runtime,
    RuntimeInfo,
    int8_folder,
    make_runtime,
    torch_runtime,
)  # fmt: skip
from lightmuseg.wsi.images import read_rgb

TILE = 512
UNETS = ("mobilenet_v2", "resnet34", "resnet50")
EAGER = "eager, as published"
SECONDS = 4.0


def network_of(model: str) -> nn.Module:
    """The trained network at its own resolution."""
    network = LightMuSeg(encoder_weights=None, output_stride=2).eval()
    load_weights(network, model)
    return network


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


def measure(way: str, image: str, model: str, batch_size: int, device: str) -> None:
    """Print the figures of one way as JSON."""
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
    batched, single = [], []
    for some, times in ((tiles, batched), (tiles[:1], single)):
        runtime(some)
        begun = time.perf_counter()
        while not times or time.perf_counter() - begun < SECONDS:
            moment = time.perf_counter()
            runtime(some)
            times.append((time.perf_counter() - moment) / len(some))
    result = {
        "tiles/s in batches": 1 / statistics.median(batched),
        "tiles/s one by one": 1 / statistics.median(single),
        "latency ms": 1000 * statistics.median(single),
        "start s": start,
        "memory MiB": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024,
    }
    if way in KINDS or way == EAGER:
        same = runtime.compared(torch_runtime(network_of(model), TILE), tiles_of(image, 8)).parity
        result |= {"error": same.error, "changed": same.changed, "passes": same.passes}
    if device != "cpu":
        result["GPU memory MiB"] = torch.cuda.max_memory_allocated() // 2**20
    print(json.dumps(result))


def floor(model: str) -> dict[str, float]:
    """FLOPs and bytes of a tile by the folded network, the rates of one kernel of each kind, and tiles/s by them."""
    network = NormalisedNetwork(fold(network_of(model)))
    tiles = torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8)
    moved = [sum(parameter.nbytes for parameter in network.parameters())]
    hooks = [
        module.register_forward_hook(lambda m, given, made: moved.append(given[0].nbytes + made.nbytes))
        for module in network.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(tiles)
    for hook in hooks:
        hook.remove()
    flops = counter.get_total_flops()
    matrix, block = torch.rand(2048, 2048), torch.rand(1 << 26)
    copied = torch.empty_like(block)
    flop_rate = 2 * 2048**3 / _quickest(lambda: matrix @ matrix)
    byte_rate = 2 * block.nbytes / _quickest(lambda: copied.copy_(block))
    seconds = flops / flop_rate, sum(moved) / byte_rate
    return {
        "GFLOP": flops / 1e9, "MB": sum(moved) / 1e6, "GFLOP/s": flop_rate / 1e9, "GB/s": byte_rate / 1e9,
        "tiles/s by FLOPs": 1 / seconds[0], "tiles/s by bytes": 1 / seconds[1], "tiles/s": 1 / max(seconds),
    }  # fmt: skip


def _quickest(call: Any) -> float:
    times = []
    for _ in range(8):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def benchmark(
    image: str, model: str, rounds: int = 5, batch_size: int = 4, device: str = "cpu", output: str = str(DOCS)
) -> None:
    """Time every way in turns.

    Args:
        image: of tissue at 0.25 um per pixel.
        model: weights, with the INT8 that 'lightmuseg quantize' made beside them.
        rounds: of all ways.
        batch_size: tiles at once.
        device: cpu, or cuda:0.
        output: folder of the figures.
    """
    known = [kind for kind in KINDS if device.split(":")[0] in KINDS[kind].devices]
    ways = [EAGER, *known, *(f"U-Net {backbone}" for backbone in UNETS)]
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in list(runs):
            command = [sys.executable, "-W", "ignore", __file__, "measure", way, image, model, str(batch_size), device]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{way}: left out: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                del runs[way]
                continue
            runs[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{way}: {runs[way][-1]}", file=sys.stderr)
    least = floor(model)
    kinds = ("tiles/s in batches", "tiles/s one by one")
    heading = ["way", *kinds, "times eager", "latency, ms", "memory, MiB", "largest error", "pixels of another class"]
    rows = [heading]
    for way, some in runs.items():
        best, eager = ([max(one[kind] for kind in kinds) for one in runs[name]] for name in (way, EAGER))
        ratios = [one / other for one, other in zip(best, eager)]
        proof = ["", ""]
        if "error" in some[0]:
            proof = [
                f"{some[0]['error']:.1e}",
                f"{some[0]['changed']:.2%}{'' if some[0]['passes'] else ', **refused**'}",
            ]
        rates = [spread([one[kind] for one in some]) for kind in kinds]
        peak = max(one["memory MiB"] for one in some)
        latency = spread([one["latency ms"] for one in some], 0)
        rows.append([way, *rates, spread(ratios, 2), latency, int(peak), *proof])
    name = processor() if device == "cpu" else torch.cuda.get_device_name(device)
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    lines = [
        "# The network alone",
        "",
        f"Tiles of {TILE} x {TILE} from `{Path(image).name}`, trained weights, batches of {batch_size},",
        f"{rounds} rounds in turns, each a process of its own. Median (least to most).",
        f"{name}, {threads} threads. Made by `scripts/benchmark/network.py`.",
        "",
        table(rows),
        "",
        "Ratios are of the better of batches and single tiles: eager PyTorch is faster with single ones here. Way 1 is",
        "the network as its authors run it: unfolded, PyTorch's default layout of memory.",
        "Memory is what the process grows by before the comparison. A runtime marked **refused** is beyond its",
        "tolerance on these tiles and would not be used. U-Nets have random weights and full-resolution logits.",
        "",
        f"The floor for float32: a tile takes {least['GFLOP']:.1f} GFLOP and moves {least['MB']:.0f} MB between",
        f"layers. A large matrix product reaches {least['GFLOP/s']:.0f} GFLOP/s and a copy {least['GB/s']:.1f} GB/s",
        f"here, so {least['tiles/s by FLOPs']:.0f} tiles/s by arithmetic and {least['tiles/s by bytes']:.0f} by",
        "memory, where no layer's result stays in the caches. OpenVINO joins layers and keeps strips in the caches,",
        "which the second does not know.",
    ]
    text = "\n".join(lines)
    publish(
        "network" if device == "cpu" else "network_gpu", text,
        {"ways": runs, "floor": least, "model_sha256": sha256_of(model), "device": name}, output,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        way, image, model, batch_size, device = sys.argv[2:]
        measure(way, image, model, int(batch_size), device)
    else:
        fire.Fire(benchmark)
