"""What a cohort's folder says: by which options it was started, what is done, and what failed and why.

Nothing else is kept, so any number of processes on any number of machines can work at one folder, and be killed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import make_folder
from lightmuseg.lock import locked
from lightmuseg.slides.finished import is_changed, is_done
from lightmuseg.slides.unfinished import ATTEMPTS, Unfinished, refuse_others
from lightmuseg.text_files import read_json, write_json

from .cohort_slide import CohortSlide

# seconds that another process may take to note the cohort's options
LOCK_S = 60


class CohortState:
    """The state of a cohort on disk: its folder, where what is no result is in a hidden folder .cohort.

    Args:
        folder: of the cohort.
        again: whether slides are done again that changed since.
    """

    def __init__(self, folder: Path, again: bool = False) -> None:
        self._again = again
        self.folder = folder
        self._hidden = folder / ".cohort"
        self._failed = self._hidden / "failed"
        self._options = self._hidden / "cohort.json"

    def begin(self, identity: dict[str, Any]) -> None:
        """Note the options and the network of the cohort, or compare them with those it was started with.

        Raises:
            InputError: for other options or another network.
        """
        make_folder(self._hidden)
        with locked(self._hidden / "lock", LOCK_S, wait_for_dead=True):
            kept = self.noted()
            if not kept:
                write_json(self._options, identity)
                return
        try:
            refuse_others(self.folder, kept, identity)
        except InputError as error:
            raise InputError(f"{str(error).removesuffix(', or delete it.')}, or another --output.") from error

    def noted(self) -> dict[str, Any]:
        """The options and the network that the cohort was started with; nothing where it was not."""
        try:
            kept: dict[str, Any] = read_json(self._options, "delete it where the options are the same as before")
        except FileNotFoundError:
            return {}
        return kept

    def results(self, slide: CohortSlide) -> Path:
        """The slide's folder of results."""
        return self.folder / slide.name

    def is_done(self, slide: CohortSlide) -> bool:
        """Whether the slide's results are there and whole, and of the slide as it is where that matters."""
        return is_done(self.results(slide)) and not (self._again and self.is_changed(slide))

    def is_changed(self, slide: CohortSlide) -> bool:
        """Whether the slide is another one than that which its results are of."""
        return is_changed(self.results(slide), slide.path)

    def is_started(self, slide: CohortSlide) -> bool:
        """Whether a process is processing the slide, or was interrupted."""
        return os.path.exists(self._partial(slide))  # noqa: PTH110 - which is no error of a name that is too long

    def may_be_fatal(self, slide: CohortSlide) -> bool:
        """Whether a process is processing the slide, or died at it."""
        return os.path.exists(self._partial(slide) / ATTEMPTS)  # noqa: PTH110

    def failures(self) -> dict[str, int]:
        """When each slide failed, in ns by the name of its note."""
        found = {}
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._failed):
                # one that another process tries again may succeed at this moment
                with suppress(FileNotFoundError):
                    found[entry.name] = entry.stat().st_mtime_ns
        return found

    def has_failed_since(self, slide: CohortSlide, failures: Mapping[str, int]) -> bool:
        """Whether the slide failed since :meth:`failures` were these."""
        note = self._note(slide)
        try:
            return note.stat().st_mtime_ns != failures.get(note.name)
        except FileNotFoundError:
            return False

    def failure(self, slide: CohortSlide) -> str | None:
        """Why the slide failed; None where it did not."""
        note = self._note(slide)
        try:
            return str(read_json(note, "delete it")["message"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return f"{note}: is damaged"

    def fail(self, slide: CohortSlide, message: str, trace: str) -> None:
        """Note that the slide failed."""
        about = {"slide": str(slide.path), "results": slide.name, "message": message, "trace": trace.splitlines()}
        write_json(self._note(slide), about)

    def forget_failure(self, slide: CohortSlide) -> None:
        """Note that the slide failed no more."""
        self._note(slide).unlink(missing_ok=True)

    def _partial(self, slide: CohortSlide) -> Path:
        return Unfinished(self.results(slide), unattended=True).path

    def _note(self, slide: CohortSlide) -> Path:
        # a slide's name may be longer than a file's
        return self._failed / f"{hashlib.sha256(os.fsencode(slide.name)).hexdigest()[:32]}.json"
