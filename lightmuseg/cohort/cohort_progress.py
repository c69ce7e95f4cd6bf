"""How far a cohort is."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

from .agenda import Agenda

# seconds between two lines in a log, which keeps them all
LOG_S = 30.0


class Progress:
    """A bar on stderr: slides done, failed, an hour, and the time that is left.

    What is left is reckoned by bytes: large slides come first, so each of the others takes less.

    Args:
        agenda: that it shows.
    """

    def __init__(self, agenda: Agenda) -> None:
        self._agenda, self._said = agenda, set(agenda.failed)
        self._begun, self._before, self._bytes_before = time.monotonic(), agenda.done, agenda.bytes_done
        self._every_s = 0.0 if sys.stderr.isatty() else LOG_S
        self._shown = -LOG_S
        self._bar = tqdm(
            total=agenda.total, initial=agenda.done, desc=self._text(), file=sys.stderr,
            bar_format="{n_fmt} of {total_fmt} slides |{bar:20}| {desc}",
        )  # fmt: skip

    def show(self) -> None:
        """Draw it as things stand, and say which slides failed since."""
        for name, message in self._agenda.failed.items():
            if name not in self._said:
                self._said.add(name)
                self._bar.write(f"lightmuseg: error: {message}", file=sys.stderr)
        if time.monotonic() - self._shown >= self._every_s:
            self._draw()

    def close(self) -> None:
        """Leave it as it is."""
        self.show()
        self._draw()
        self._bar.close()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _draw(self) -> None:
        self._shown = time.monotonic()
        self._bar.n = self._agenda.done
        self._bar.set_description_str(self._text())

    def _text(self) -> str:
        agenda, seconds = self._agenda, time.monotonic() - self._begun
        ended, read = agenda.done - self._before, agenda.bytes_done - self._bytes_before
        text = f"{len(agenda.failed)} failed"
        if ended and read:
            left = seconds * (agenda.bytes_total - agenda.bytes_done) / read
            text += f", {3600 * ended / seconds:.0f} slides/h, {tqdm.format_interval(left)} left"
        return text
