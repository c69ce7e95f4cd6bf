"""What each stage of a slide costs: MODEL OUTPUT {"option": value} together|apart SLIDE ...

The slides are run by the bundle, in one process. "apart" lets the stages wait for each other, so that the CPU-seconds
of all threads, cuCIM's among them, and the bytes that calls read and wrote can be told apart; "together" is the engine
as it is, and only whole slides are timed. The first slide warms up and is left out.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from watch import watched

import lightmuseg.engine.pipeline as engine
import lightmuseg.slides.job as job
from lightmuseg.slides.bundle_config import run_bundle
from lightmuseg.wsi.model_view import ModelView

model, output, options, way, *slides = sys.argv[1:]
torch.set_num_threads(len(os.sched_getaffinity(0)))
COUNTED = ("seconds", "cpu", "read", "written")
costs: defaultdict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0.0))
runs: list[dict[str, Any]] = []
within: list[str] = []


def now() -> tuple[float, ...]:
    """Seconds, CPU-seconds, bytes read and bytes written of this process so far."""
    moved = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return time.perf_counter(), time.process_time(), int(moved["rchar"]), int(moved["wchar"])


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count a block as part of a stage."""
    before = now()
    within.append(name)
    yield
    within.pop()
    for kind, start, end in zip(COUNTED, before, now()):
        costs[name][kind] += end - start


def count(place: Any, function: str, name: str) -> None:
    """Count all calls of a function or method as part of a stage."""
    original = getattr(place, function)

    def call(*arguments: Any, **options: Any) -> Any:
        # the places that are looked at are read too
        if "checking" in within:
            return original(*arguments, **options)
        with stage(name):
            return original(*arguments, **options)

    setattr(place, function, call)


class AtOnce:
    """An executor that does at once what is submitted."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __enter__(self) -> AtOnce:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """The result, as a future."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future


def whole(self: job.SlideJob) -> dict[str, Any]:
    """A slide, and what it took."""
    costs.clear()
    with stage("slide"):
        record = run_of(self)
    width, height = record["level0_size"]
    runs.append({
        "slide": Path(record["slide"]).name,
        "tiles": record["tiles"],
        "gigapixels": width * height / 1e9,
        "bytes": Path(record["slide"]).stat().st_size,
        "model": record["model"],
        "costs": {name: dict(cost) for name, cost in costs.items() if name != "segmenting"},
    })  # fmt: skip
    return record


run_of, job.SlideJob.run = job.SlideJob.run, whole
if way == "apart":
    engine.ThreadPoolExecutor = AtOnce
    engine._ahead = iter
    job.SlideJob._timed = lambda self, name: stage(name)
    count(ModelView, "read_batch", "reading")
    count(engine, "_logits", "network")
    count(engine.RowWriter, "add", "merging")
    count(engine.RowWriter, "close", "merging")
    count(job, "sha256_of", "hashing")
    for writer in [name for name in vars(job) if name.startswith("write_") and name != "write_json"]:
        count(job, writer, f"writing: {writer.removeprefix('write_')}")
with watched() as facts:
    bundle = Path(__file__).parents[3] / "bundle"
    values = {"checkpoint": Path(model), **json.loads(options)}
    run_bundle(bundle, None, [Path(slide) for slide in slides], Path(output), values)
    facts["slides"] = runs[1:]
