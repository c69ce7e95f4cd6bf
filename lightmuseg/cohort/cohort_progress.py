"""What the command shows while a cohort is segmented."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from .tally import Tally
from .work_list import TABLE

# seconds between two lines in a log, which keeps them all
LOG_S = 30.0
# lines on slides that failed before anything was tried
MOST_LINES = 20


class Progress:
    """A bar on stderr: slides done, failed, an hour, and the time that is left; and a line for each failure.

    What is left is reckoned by bytes: large slides come first, so each of the others takes less.

    Args:
        output: the cohort's folder.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._printed: set[str] = set()
        self._bar: tqdm | None = None
        self._logging = logging_redirect_tqdm([logging.getLogger("lightmuseg")])
        self._every_s = 0.0 if sys.stderr.isatty() else LOG_S

    def show(self, tally: Tally) -> None:
        """Draw the bar, and print which slides failed since the last call."""
        new = [message for name, message in tally.failed.items() if name not in self._printed]
        self._printed.update(tally.failed)
        if self._bar is None and len(new) > MOST_LINES:
            new[MOST_LINES:] = [f"{len(new) - MOST_LINES} more; see {self._output / TABLE}"]
        for message in new:
            tqdm.write(f"lightmuseg: error: {message}", file=sys.stderr)
        if self._bar is None and tally.pending:
            self._start(tally)
        elif self._bar is not None and time.monotonic() - self._drawn >= self._every_s:
            self._draw()

    def _start(self, tally: Tally) -> None:
        self._tally, self._done_before, self._bytes_before = tally, tally.done, tally.bytes_ended
        self._started = self._drawn = time.monotonic()
        self._bar = tqdm(
            total=tally.slides_total, initial=tally.done, desc=self._text(), file=sys.stderr,
            bar_format="{n_fmt} of {total_fmt} slides |{bar:20}| {desc}",
        )  # fmt: skip

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._bar.n = self._tally.done
        self._bar.set_description_str(self._text())

    def _text(self) -> str:
        tally, seconds = self._tally, time.monotonic() - self._started
        done, read = tally.done - self._done_before, tally.bytes_ended - self._bytes_before
        text = f"{len(tally.failed)} failed"
        if done and read:
            left = seconds * (tally.bytes_total - tally.bytes_ended) / read
            text += f", {3600 * done / seconds:.0f} slides/h, {tqdm.format_interval(left)} left"
        return text

    def __enter__(self) -> Progress:
        # warnings stand above the bar
        self._logging.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._draw()
            self._bar.close()
        self._logging.__exit__(None, None, None)
        if isinstance(error, KeyboardInterrupt):
            print(f"\n{self._output}: stopped; the same command goes on where it was", file=sys.stderr)
