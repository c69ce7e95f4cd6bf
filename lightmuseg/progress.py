"""The command line's bar of progress at a slide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar_of(slide_name: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (tiles that are done, all tiles) that draws a bar on stderr; none before it is first called."""
    bar: tqdm | None = None

    def show(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = tqdm(total=total, initial=done, unit="tile", desc=slide_name)
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
