"""How cost grows with size, tissue, batch and threads: python scripts/benchmark/growth.py SOURCE MODEL [OPTIONS].

Slides of real pixels are made from SOURCE, an image or a folder of images, by scripts/make_pyramid.py; each run is a
process of its own. Sizes are run with a network that costs nothing, which shows reading, merging and writing, and the
memory they take: a network's time is its tiles over its rate. The others are run with the network. Writes
docs/benchmarks/growth.*.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fire
from figures import DOCS, processor, publish, spread, table

from lightmuseg.provenance import sha256_of

ROOT = Path(__file__).parents[2]
ENGINE = Path(__file__).parent / "engines" / "with_lightmuseg.py"
# by OpenVINO, which is what a CPU gets
FREE = {
    "runtime_def": {
        "_target_": "lightmuseg.runtimes.openvino.openvino_runtime", "network": "$__import__('free').Free()",
        "tile_size": 512, "precision": "float32",
    }
}  # fmt: skip
GIGAPIXELS = {1: 32_000, 4: 64_000, 16: 128_000, 64: 256_000}
SIDE = 10_000
TISSUE = 0.3


def benchmark(
    source: str, model: str, rounds: int = 3, gigapixels: str = "1,4,16,64", parts: str = "size,tissue,batch,threads",
    output: str = str(DOCS), folder: str = "",
) -> None:  # fmt: skip
    """Measure in turns.

    Args:
        source: an image of tissue or a folder of such.
        model: weights.
        rounds: runs of each but those above 4 gigapixels, which are run once.
        gigapixels: sizes, of 1, 4, 16 and 64.
        parts: what to vary.
        output: folder of the figures.
        folder: for the slides, which take 0.2 GB a gigapixel and are deleted one by one; else a temporary one.
    """
    threads = os.cpu_count() or 1
    chosen = {
        "size": [(f"{n} gigapixels", GIGAPIXELS[n], TISSUE, FREE, threads) for n in _numbers(gigapixels)],
        "tissue": [(f"{share:.0%} tissue", SIDE, share, {}, threads) for share in (0.05, 0.3, 0.6, 1.0)],
        "batch": [(f"batches of {n}", SIDE, TISSUE, {"batch_size": n}, threads) for n in (1, 4, 16)],
        "threads": [(f"{n} threads", SIDE, TISSUE, {"workers": n}, n) for n in range(1, threads + 1)],
    }
    wanted = str(parts).strip("()").replace("'", "").replace(" ", "").split(",")
    figures: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part in wanted:
        figures[part] = {name: [] for name, *_ in chosen[part]}
        for name, side, tissue, options, count in chosen[part]:
            with tempfile.TemporaryDirectory(dir=folder or None) as temporary:
                slide = Path(temporary) / "slide.tif"
                words = ["--source", source, "--output", slide, "--side", side, "--tissue", tissue]
                _run([ROOT / "scripts" / "make_pyramid.py", *words])
                for number in range(1 if side > GIGAPIXELS[4] else rounds):
                    target = Path(temporary) / str(number)
                    done = _run([ENGINE, slide, model, target, json.dumps(options)], OMP_NUM_THREADS=str(count))
                    facts = json.loads(done.strip().splitlines()[-1])
                    del facts["map"]
                    print(f"{name}: {facts}", file=sys.stderr)
                    figures[part][name].append(facts)
                    shutil.rmtree(target)
    publish("growth", _text(figures), {"parts": figures, "rounds": rounds, "model_sha256": sha256_of(model)}, output)


def _numbers(text: str) -> list[int]:
    return [int(word) for word in str(text).strip("()").split(",")]


def _run(words: list[Any], **environment: str) -> str:
    command = [sys.executable, "-W", "ignore", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return done.stdout


def _text(figures: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    lines = [
        "# How cost grows",
        "",
        "Slides of real BCSS pixels, JPEG, 0.25 um/px; tiles of 512 x 512, overlap 0.25, each run a process of its",
        f"own. Median (least to most). {processor()}. Made by `scripts/benchmark/growth.py`.",
        "Sizes have 30% tissue and, run by OpenVINO, a network that costs nothing; the others the network, on",
        "10,000 x 10,000 pixels with 30% tissue where nothing else is said.",
    ]
    for runs in figures.values():
        rows = [["", "tiles", "seconds", "segmenting, tiles/s", "writing, s", "CPU share", "peak memory, MiB"]]
        for name, some in runs.items():
            stages = [one["stages s"] for one in some]
            rows.append([
                name, some[0]["tiles"], spread([one["seconds"] for one in some]),
                spread([one["tiles"] / stage["segmenting"] for one, stage in zip(some, stages)]),
                spread([stage["writing"] for stage in stages]),
                spread([100 * one["CPU share"] for one in some], 0) + " %",
                max(one["peak MiB"] for one in some),
            ])  # fmt: skip
        lines += ["", table(rows)]
    return "\n".join(lines)


if __name__ == "__main__":
    fire.Fire(benchmark)
