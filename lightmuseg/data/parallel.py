"""Work spread over all processors."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeAlias, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# Is called with the name of a step, how much of it is done, and all of it.
Progress: TypeAlias = Callable[[str, int, int], None]


def each(
    function: Callable[[Item], Result], items: Sequence[Item], step: str, progress: Progress | None = None
) -> list[Result]:
    """``function(item)`` of every item, in order; a worker has one item at a time.

    Args:
        function: can be pickled; what it raises is raised here.
        items: likewise.
        step: its name, for ``progress``.
        progress: is called after each item.
    """
    workers = max(1, min(os.cpu_count() or 1, len(items)))
    # Thousands of small items travel in groups, or the way would cost more than the work.
    group = 1 + len(items) // 1000
    results = []
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as pool:
        for result in pool.map(function, items, chunksize=group):
            results.append(result)
            if progress is not None:
                progress(step, len(results), len(items))
    return results


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed, so that nothing writes behind a later run's back."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
