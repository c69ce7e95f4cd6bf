"""How far a cohort is, as its folder says."""

from __future__ import annotations

import os
from collections.abc import Sequence

from lightmuseg.slides.finished import RECORD

from .cohort_slide import CohortSlide
from .cohort_state import CohortState


class Tally:
    """Which of a command's slides are done or failed since; ten thousand can be looked at again and again.

    Attributes:
        pending: slides that are neither.
        done: number of slides whose results are there.
        failed: messages by name; of slides that cannot be tried by path, for their names may be others'.
        bytes_ended: of the slides that are done or failed.
        failures_before: the notes of failures when this was made; these slides are tried again.
    """

    def __init__(self, slides: Sequence[CohortSlide], state: CohortState) -> None:
        self._state = state
        self.failures_before = self._failures = state.failures()
        # by name, when the records of results were written that have been looked at
        self._seen: dict[str, tuple[int, int]] = {}
        self.slides_total, self.bytes_total = len(slides), sum(slide.size for slide in slides)
        self.pending = [slide for slide in slides if not slide.fault]
        self.failed = {str(slide.path): slide.fault for slide in slides if slide.fault}
        self.done, self.bytes_ended = 0, self.bytes_total - sum(slide.size for slide in self.pending)
        self.look()

    def look(self, anew: bool = False) -> None:
        """Look at the folder again; ``anew`` also at results that were found wanting, as of a disk that was away."""
        if anew:
            self._seen.clear()
        failures = self._state.failures()
        is_new, self._failures = failures != self._failures, failures
        pending = []
        for slide in self.pending:
            if self._is_done(slide):
                self.done += 1
            elif is_new and self._state.has_failed_since(slide, self.failures_before):
                self.failed[slide.name] = self._state.failure(slide) or ""
            else:
                pending.append(slide)
                continue
            self.bytes_ended += slide.size
        self.pending = pending

    def _is_done(self, slide: CohortSlide) -> bool:
        try:
            record = os.stat(f"{self._state.results(slide)}/{RECORD}")  # noqa: PTH116 - which is three times as fast
        except (OSError, ValueError):
            return False
        seen = record.st_ino, record.st_mtime_ns
        if self._seen.get(slide.name) == seen:
            return False
        self._seen[slide.name] = seen
        return self._state.is_done(slide)
