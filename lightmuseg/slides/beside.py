"""What is made of a slide while its map grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from lightmuseg.engine.rows import RowStore


class Beside:
    """Work in threads of its own, which may read the rows of a store while others fill it.

    Used as a context, around the filling: when it ends in order all rows are there, and it waits for the work. Where
    the filling fails, work that reads rows ends with :class:`.UnfilledError`.

    Args:
        store: of the rows.
        work: by names.
    """

    def __init__(self, store: RowStore, work: Mapping[str, Callable[[], Any]]) -> None:
        self._store, self._work = store, work
        self._open = ExitStack()
        self._futures: dict[str, Future[Any]] = {}

    def __enter__(self) -> Beside:
        with self._open:
            pool = self._open.enter_context(ThreadPoolExecutor(max(1, len(self._work)), "beside"))
            self._open.enter_context(self._store.growing())
            self._futures = {name: pool.submit(call) for name, call in self._work.items()}
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)
        if error[0] is None:
            self.check()

    def check(self) -> None:
        """Raise the error of work that failed so far."""
        for future in self._futures.values():
            if future.done():
                future.result()

    def __getitem__(self, name: str) -> Any:
        """What a work gave, once all is done."""
        return self._futures[name].result()
