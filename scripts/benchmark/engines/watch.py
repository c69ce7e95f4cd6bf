"""Watch this process while it works: time, processor, memory. Standard library only, for every environment."""

from __future__ import annotations

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

kept: dict[str, Any] = {}


@contextmanager
def watched(**facts: Any) -> Iterator[dict[str, Any]]:
    """Print, as the last line, the facts put into the dict that is given, with what the block took as JSON."""
    started, busy = time.perf_counter(), time.process_time()
    yield facts
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    facts |= {
        "seconds": seconds,
        "CPU share": busy / seconds / (os.cpu_count() or 1),
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print("\n" + json.dumps(facts))


def arguments() -> tuple[str, str, str, dict[str, Any]]:
    """Slide, model, output and options of the command: SLIDE MODEL OUTPUT {"option": value}."""
    slide, model, output, options = sys.argv[1:]
    return slide, model, output, json.loads(options)


def threads() -> int:
    """The threads that PyTorch gets."""
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def declare_torchvision() -> None:
    """Let torchvision import beside a CPU build of PyTorch; see the package's networks/torchvision_operators.py."""
    path = Path(__file__).parents[3] / "lightmuseg" / "networks" / "torchvision_operators.py"
    # kept, since a library that is dropped takes its operators with it
    kept.update(runpy.run_path(str(path)))
    kept["declare_missing_operators"]()
