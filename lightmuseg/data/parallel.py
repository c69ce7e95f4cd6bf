"""Work spread over all processors."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(function: Callable[[Item], Result], items: Sequence[Item], title: str, unit: str) -> Iterator[Result]:
    """``function(item)`` of every item, in order, with a progress bar; a worker has one item at a time.

    Args:
        function: can be pickled; what it raises is raised here.
        items: likewise.
        title, unit: of the progress bar.
    """
    workers = max(1, min(os.cpu_count() or 1, len(items)))
    # Thousands of small items travel in groups, or the way would cost more than the work.
    group = 1 + len(items) // 1000
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        yield from tqdm(pool.map(function, items, chunksize=group), title, len(items), unit=unit)


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, so that nothing writes behind a later run's back."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
