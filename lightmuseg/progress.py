"""The command line's bars of progress."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm


class SlideBars:
    """A callback (slide or step, how much is done, all of it) that draws a bar on stderr for each in turn.

    Args:
        unit: of what is counted; "B" for bytes, which are shown in k, M and G.
    """

    def __init__(self, unit: str = "tile") -> None:
        self._unit = unit
        self._slide: Path | str | None = None
        self._bar: tqdm | None = None

    def __call__(self, slide: Path | str, done: int, total: int) -> None:
        if self._bar is None or slide != self._slide:
            self.close()
            name = slide.name if isinstance(slide, Path) else slide
            self._slide, self._bar = (
                slide,
                tqdm(total=total, initial=done, unit=self._unit, unit_scale=self._unit == "B", desc=name),
            )
        # an estimate of all of it may change
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()

    def close(self) -> None:
        """End the bar where it stands."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
