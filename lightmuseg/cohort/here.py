"""One worker, in this process."""

from __future__ import annotations

from .schedule import Report
from .slide_worker import READY, SlideWorker, Task
from .work_list import CohortSlide


class Here:
    """A :class:`.Pool` of the process that calls it.

    Args:
        task: what is to be done.
    """

    size = 1

    def __init__(self, task: Task) -> None:
        self._task = task
        self._worker: SlideWorker | None = None
        self._report: Report | None = None

    def start(self, worker: int, slide: CohortSlide | None) -> None:
        if slide is None or self._worker is None:
            self._worker, self._report = SlideWorker(self._task), Report(READY)
        else:
            self._report = self._worker(slide)

    def finished(self, timeout: float) -> list[tuple[int, Report | None]]:
        return [(0, self._report)]

    def close(self) -> None:
        self._worker = None
