"""The command line's bars of progress."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm


class SlideBars:
    """A callback (slide, tiles that are done, all tiles) that draws a bar on stderr for each slide."""

    def __init__(self) -> None:
        self._slide: Path | None = None
        self._bar: tqdm | None = None

    def __call__(self, slide: Path, done: int, total: int) -> None:
        if self._bar is None or slide != self._slide:
            self.close()
            self._slide, self._bar = slide, tqdm(total=total, initial=done, unit="tile", desc=slide.name)
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """End the bar where it stands."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
