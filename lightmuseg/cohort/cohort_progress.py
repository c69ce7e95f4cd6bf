"""What the command shows while a cohort is segmented."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from .tally import Tally

# seconds between two lines in a log, which keeps them all
LOG_S = 30.0


class CohortBar:
    """A callback that draws a bar on stderr: slides done, failed, an hour, and the time that is left.

    What is left is reckoned by bytes: large slides come first, so each of the others takes less.
    """

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._every_s = 0.0 if sys.stderr.isatty() else LOG_S

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if self._bar is None and tally.pending:
            self._started, self._before = now, (tally.done, tally.bytes_ended)
            self._bar = tqdm(
                total=tally.slides_total, initial=tally.done, desc=self._text(tally, now), file=sys.stderr,
                bar_format="{n_fmt} of {total_fmt} slides |{bar:20}| {desc}",
            )  # fmt: skip
            self._drawn = now
        elif self._bar is not None and (now - self._drawn >= self._every_s or not tally.pending):
            self._drawn, self._bar.n = now, tally.done
            self._bar.set_description_str(self._text(tally, now))

    def close(self) -> None:
        """End the bar where it stands."""
        if self._bar is not None:
            self._bar.close()

    def _text(self, tally: Tally, now: float) -> str:
        seconds = now - self._started
        done, read = tally.done - self._before[0], tally.bytes_ended - self._before[1]
        text = f"{len(tally.failed)} failed"
        if done and read:
            left = seconds * (tally.bytes_total - tally.bytes_ended) / read
            text += f", {3600 * done / seconds:.0f} slides/h, {tqdm.format_interval(left)} left"
        return text
