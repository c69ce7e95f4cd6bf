"""Slides to workers, whatever the workers are."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from lightmuseg.errors import InputError

from .agenda import Agenda
from .slide_worker import READY, Report, refuse
from .work_list import CohortSlide

TICK_S = 1.0
# workers that may die, one after the other, while they load the network
MAX_DEATHS = 3


class Pool(Protocol):
    """Workers, each of which does one thing at a time, so that none waits behind a large slide.

    Attributes:
        size: number of workers; they are numbered from 0.
    """

    size: int

    def start(self, worker: int, slide: CohortSlide | None) -> None:
        """Begin a slide; without one, load the network."""

    def finished(self, timeout: float) -> list[tuple[int, Report | None]]:
        """The workers that ended what they began, after ``timeout`` s at most; None of one that died and can begin."""

    def close(self) -> None:
        """End all workers at once."""


def run(
    pool: Pool, agenda: Agenda, forgive: Callable[[CohortSlide], None], ticks: Sequence[Callable[[], None]],
    loaded: Callable[[], None],
) -> None:  # fmt: skip
    """Give slides to workers until all have ended.

    Args:
        pool: of workers.
        agenda: of slides.
        forgive: called with each slide at which a worker is ended on purpose.
        ticks: called at least each second, where a worker has a process of its own, and at the end.
        loaded: called when the first worker has loaded the network.

    Raises:
        InputError: for options that cannot be, a full disk, or workers that die before they begin.
        KeyboardInterrupt: by Ctrl-C, or as a scheduler ends a job, by SIGTERM.
    """
    at: dict[int, CohortSlide | None] = {}
    idle: list[int] = []

    def begin(worker: int, slide: CohortSlide | None) -> None:
        at[worker] = slide
        pool.start(worker, slide)

    deaths, first = 0, True
    try:
        with _sigterm_as_interrupt():
            for worker in range(min(pool.size, len(agenda))):
                begin(worker, None)
            while len(agenda) or any(slide is not None for slide in at.values()):
                while idle and (slide := agenda.take()) is not None:
                    begin(idle.pop(0), slide)
                for tick in ticks:
                    tick()
                if not at and len(agenda):
                    # all that is left is in the hands of other processes
                    time.sleep(TICK_S)
                for worker, report in pool.finished(TICK_S) if at else ():
                    slide = at.pop(worker)
                    if report is None:
                        deaths = deaths + 1 if slide is None else 0
                        _take_death(agenda, slide, deaths)
                        begin(worker, None)
                        continue
                    deaths = 0
                    idle.append(worker)
                    if slide is not None:
                        agenda.ended(slide, report)
                    elif report.status != READY:
                        refuse(report)
                    elif first:
                        first = False
                        loaded()
            for tick in ticks:
                tick()
    finally:
        pool.close()
        for slide in at.values():
            if slide is not None:
                forgive(slide)


def _take_death(agenda: Agenda, slide: CohortSlide | None, deaths: int) -> None:
    if slide is not None:
        print(f"\nlightmuseg: warning: {slide.path}: a worker died at it; it is tried again", file=sys.stderr)
        agenda.died(slide)
    elif deaths >= MAX_DEATHS:
        raise InputError(f"{deaths} workers died while they loaded the network; see whether memory suffices.")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
