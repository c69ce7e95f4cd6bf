"""Where the network's time goes under OpenVINO: python scripts/benchmark/layers.py --model MODEL.

Time of each part of the folded network on one thread, by OpenVINO's own clock, beside its share of the arithmetic.
Writes docs/benchmarks/layers.*.
"""

from __future__ import annotations

import re
from collections import defaultdict

import fire
import numpy as np
import torch
from figures import DOCS, processor, publish, spread, table
from network import TILE, network_of
from torch.utils.flop_counter import FlopCounterMode

from lightmuseg.networks import fold
from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import NormalisedNetwork
from lightmuseg.runtimes.openvino import converted

PARTS = re.compile(r"(encoder|msffm\.\d|up\.\d|frfm\.\d|head)")
REST = "scaling of pixels"


def part_of(name: str) -> str:
    """The part of the network that a layer's name lies in."""
    found = PARTS.search(name)
    return found.group() if found else REST


def benchmark(model: str, rounds: int = 20, output: str = str(DOCS)) -> None:
    """Profile the network.

    Args:
        model: weights.
        rounds: tiles that are timed, after two that warm up.
        output: folder of the figures.
    """
    import openvino

    folded = fold(network_of(model))
    settings = {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32",
        "PERF_COUNT": True,
    }  # fmt: skip
    request = openvino.Core().compile_model(converted(folded, TILE), "CPU", settings).create_infer_request()
    tile = np.random.default_rng(0).integers(0, 256, (1, TILE, TILE, 3), dtype=np.uint8)
    times: dict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 2):
        request.infer([tile])
        one: dict[str, float] = defaultdict(float)
        for layer in request.profiling_info:
            one[part_of(layer.node_name)] += layer.real_time.total_seconds() * 1000
        if number >= 2:
            for part, milliseconds in one.items():
                times[part].append(milliseconds)
    flops = _flops(folded)
    total = sum(float(np.median(some)) for some in times.values())
    rows = [["part", "ms", "share of the time", "GFLOP", "GFLOP/s"]]
    for part, some in sorted(times.items(), key=lambda item: -float(np.median(item[1]))):
        middle = float(np.median(some))
        rate = f"{1000 * flops[part] / middle:.0f}" if part in flops else ""
        rows.append([part, spread(some), f"{middle / total:.1%}", f"{flops.get(part, 0.0):.2f}", rate])
    lines = [
        "# The network's parts under OpenVINO",
        "",
        f"One tile of {TILE} x {TILE}, one thread, float32, folded; median (least to most) of {rounds} tiles, "
        f"{total:.0f} ms together.",
        f"{processor()}. Made by `scripts/benchmark/layers.py`.",
        "",
        table(rows),
    ]
    publish("layers", "\n".join(lines), {"ms": times, "GFLOP": flops, "model_sha256": sha256_of(model)}, output)


def _flops(folded: torch.nn.Module) -> dict[str, float]:
    """GFLOP of each part."""
    with torch.inference_mode(), FlopCounterMode(display=False, depth=4) as counter:
        NormalisedNetwork(folded)(torch.zeros(1, TILE, TILE, 3, dtype=torch.uint8))
    counts = {name: sum(some.values()) / 1e9 for name, some in counter.get_flop_counts().items()}
    return {
        part: next(count for name, count in counts.items() if name.endswith(f"network.{part}"))
        for part in sorted({part_of(name) for name in counts} - {REST})
    }


if __name__ == "__main__":
    fire.Fire(benchmark)
