"""Opened things, a bounded number of them, shared by the threads of a server."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Thing = TypeVar("Thing")


class OpenFiles(Generic[Key, Thing]):
    """Things that ``make`` opens when first asked for, closed, the longest unused first, when they cost too much.

    What is in use stays open, so there are at most ``room`` and one for each thread.
    """

    def __init__(
        self, make: Callable[[Key], Thing], room: float, cost: Callable[[Thing], float] = lambda thing: 1
    ) -> None:
        self._make, self._room, self._cost = make, room, cost
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def using(self, key: Key) -> Iterator[Thing]:
        """The thing of a key, open for the length of the block."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            entry.users += 1
        try:
            with entry.lock:
                if entry.thing is None:
                    entry.thing = self._make(key)
                    entry.cost = self._cost(entry.thing)
            yield entry.thing
        finally:
            with self._lock:
                entry.users -= 1
                self._close_surplus()

    def _close_surplus(self) -> None:
        total = sum(entry.cost for entry in self._entries.values())
        for key, entry in [(key, entry) for key, entry in self._entries.items() if not entry.users]:
            if entry.thing is None:
                del self._entries[key]
            elif total > self._room:
                total -= entry.cost
                del self._entries[key]
                entry.thing.close()

    def __len__(self) -> int:
        return len(self._entries)

    def close(self) -> None:
        """Close all of them; what is in use, when it no longer is."""
        with self._lock:
            self._room = -1
            self._close_surplus()


class _Entry:
    def __init__(self) -> None:
        self.thing: Any = None
        self.users, self.cost = 0, 0.0
        self.lock = threading.Lock()
