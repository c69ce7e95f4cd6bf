"""Watch this process while it works: time, processor, memory. Standard library only, for every environment."""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PERIOD_S, KEPT = 0.25, 24
PAGE = os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched(**facts: Any) -> Iterator[dict[str, Any]]:
    """Print, as the last line, the facts put into the dict that is given, with what the block took as JSON."""
    memory, stop = [], threading.Event()

    def look() -> None:
        while not stop.wait(PERIOD_S):
            memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * PAGE // 2**20)

    thread = threading.Thread(target=look, daemon=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    thread.start()
    started, busy = time.perf_counter(), time.process_time()
    yield facts
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    stop.set()
    thread.join()
    facts |= {
        "seconds": seconds,
        "CPU share": busy / seconds / (os.cpu_count() or 1),
        "memory before MiB": before,
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "memory over time MiB": memory[:: max(1, len(memory) // KEPT)],
    }
    print("\n" + json.dumps(facts))


def declare_torchvision() -> None:
    """Let torchvision import beside a CPU build of PyTorch; see the package's networks/torchvision_operators.py."""
    import importlib.util

    path = Path(__file__).parents[3] / "lightmuseg" / "networks" / "torchvision_operators.py"
    spec = importlib.util.spec_from_file_location("torchvision_operators", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # kept, since a library that is dropped takes its operators with it
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.declare_missing_operators()
