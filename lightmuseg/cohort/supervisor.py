"""The parent of workers: it starts them, and others for those that die."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from lightmuseg.errors import InputError

from .cohort_slide import CohortSlide
from .tally import Tally

logger = logging.getLogger(__name__)

TICK_S = 1.0
# seconds in which workers may end in order when they are stopped, as long as schedulers wait
STOP_S = 20.0
# workers that may die, one after the other, while they load the network
MAX_DEATHS = 3
ENDED, DIED = "ended", "died"
# what a worker reports: what :func:`.work` yields, or how it ended
News = CohortSlide | str | None


class Workers(Protocol):
    """Processes that run :func:`.work`: ``size`` of them, numbered from 0."""

    size: int

    def start(self, worker: int) -> None:
        """Start a worker, or another one for one that died."""

    def news(self, timeout: float) -> list[tuple[int, News]]:
        """What workers report, after ``timeout`` s at most; the error that one ended with is raised."""

    def stop(self) -> None:
        """End all that still run: in order where they can, so that no death is counted against a slide."""


def supervise(workers: Workers, tally: Tally) -> Iterator[None]:
    """Start workers until no slide of ``tally``, which the caller brings up to date, is pending.

    Yields:
        At least each second, as soon as a worker has loaded the network.

    Raises:
        InputError: where workers die before they have loaded the network.
    """
    # the slide that each worker has; None between slides
    current: dict[int, CohortSlide | None] = dict.fromkeys(range(min(workers.size, len(tally.pending))))
    loading, deaths = set(current), 0
    is_ready = False
    try:
        for worker in current:
            workers.start(worker)
        while current and (tally.pending or any(current.values())):
            for worker, news in workers.news(TICK_S):
                if news == ENDED:
                    del current[worker]
                elif news == DIED:
                    deaths = deaths + 1 if worker in loading else 0
                    _report_death(current[worker], deaths)
                    workers.start(worker)
                    current[worker] = None
                    loading.add(worker)
                else:
                    current[worker] = news
                    loading.discard(worker)
                    deaths, is_ready = 0, True
            if is_ready:
                yield
    finally:
        workers.stop()


def _report_death(slide: CohortSlide | None, deaths: int) -> None:
    if deaths >= MAX_DEATHS:
        raise InputError(f"{deaths} workers died while they loaded the network; see whether memory suffices.")
    if slide is not None:
        logger.warning("%s: a worker died at it; it is tried again", slide.path)
