"""What is still to do of a cohort, and what became of the rest."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

from lightmuseg.errors import InputError
from lightmuseg.slides.outcome import BUSY, DISK_FULL, DONE, FAILED

from .cohort_state import CohortState
from .slide_worker import Report, refuse
from .work_list import CohortSlide

# seconds after which a slide that another process holds is looked at again
AGAIN_S = 5.0


class Agenda:
    """Slides to do, in order; those that another process holds come again at the end.

    Args:
        slides: all of this coordinator's.
        state: of the cohort; what failed before is tried again, what another coordinator sees fail meanwhile is not.

    Attributes:
        done: slides whose results are there.
        failed: messages by name; of slides that cannot be tried by path, for their names may be others'.
        bytes_done: of the slides that ended.
    """

    def __init__(self, slides: Sequence[CohortSlide], state: CohortState) -> None:
        self._state = state
        self._waiting: deque[CohortSlide] = deque()
        self._not_before: dict[str, float] = {}
        self._old_failures = {slide.name: state.failed_at(slide) for slide in slides}
        self.done, self.failed, self.bytes_done = 0, {}, 0
        for slide in slides:
            if slide.fault:
                self._end(slide, slide.fault)
            elif state.is_done(slide):
                self._end(slide)
            else:
                self._waiting.append(slide)
        self.total = len(slides)
        self.bytes_total = sum(slide.size for slide in slides)

    def __len__(self) -> int:
        """Slides that nobody here is at and that are not known to have ended."""
        return len(self._waiting)

    def take(self) -> CohortSlide | None:
        """The next slide; None where all that remain are ended, or held by others for now."""
        for _ in range(len(self._waiting)):
            slide = self._waiting.popleft()
            if self._state.is_done(slide):
                self._end(slide)
            elif (failed_at := self._state.failed_at(slide)) not in (None, self._old_failures[slide.name]):
                self._old_failures[slide.name] = failed_at
                self._end(slide, self._state.failure(slide) or "")
            elif self._not_before.get(slide.name, 0.0) > time.monotonic():
                self._waiting.append(slide)
            else:
                return slide
        return None

    def ended(self, slide: CohortSlide, report: Report) -> None:
        """Take what a worker reports.

        Raises:
            InputError: where the disk is full, which no other slide would get past.
            RuntimeError: for a bug outside of the slide's own work.
        """
        if report.status == DONE:
            self._end(slide)
        elif report.status == FAILED:
            self._old_failures[slide.name] = self._state.failed_at(slide)
            self._end(slide, report.message)
        elif report.status == BUSY:
            self._not_before[slide.name] = time.monotonic() + AGAIN_S
            self._waiting.append(slide)
        elif report.status == DISK_FULL:
            raise InputError(
                f"{self._state.folder}: the disk is full ({report.message}); free some space and give the same command "
                "again, which goes on from here."
            )
        else:
            refuse(report)

    def died(self, slide: CohortSlide) -> None:
        """Try a slide again whose worker died; how often is the slide's own matter."""
        self._waiting.append(slide)

    def _end(self, slide: CohortSlide, failure: str | None = None) -> None:
        if failure is None:
            self.done += 1
        else:
            self.failed[str(slide.path) if slide.fault else slide.name] = failure
        self.bytes_done += slide.size
