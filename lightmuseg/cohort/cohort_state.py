"""What a cohort's folder says: what was begun there, what is done, and what failed and why.

Nothing else is kept, so any number of processes on any number of machines can work at one folder, and be killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import make_folder
from lightmuseg.lock import locked
from lightmuseg.slides.finished import is_changed, is_done
from lightmuseg.slides.unfinished import Unfinished, refuse_others
from lightmuseg.text_files import write_json

from .work_list import CohortSlide

# seconds that another process may take to note what a cohort rests on
LOCK_S = 60


class CohortState:
    """The state of a cohort on disk.

    Args:
        folder: of the cohort; what is no result is in its hidden folder .cohort.
        again: whether slides are done again that changed since.
    """

    def __init__(self, folder: Path, again: bool = False) -> None:
        self._again = again
        self.folder = folder
        self._hidden = folder / ".cohort"

    def begin(self, identity: dict[str, Any]) -> None:
        """Note what the cohort rests on, or compare with what it was begun by.

        Raises:
            InputError: for other options or another network.
        """
        path = self._hidden / "cohort.json"
        make_folder(self._hidden)
        with locked(self._hidden / "lock", LOCK_S, wait_for_dead=True):
            if not path.exists():
                write_json(path, identity)
                return
            try:
                kept = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InputError(f"{path}: is damaged; delete it where the options are the same as before.") from error
        try:
            refuse_others(self.folder, kept, identity)
        except InputError as error:
            raise InputError(f"{str(error).removesuffix(', or delete it.')}, or another --output.") from error

    def results(self, slide: CohortSlide) -> Path:
        """The slide's folder of results."""
        return self.folder / slide.name

    def is_done(self, slide: CohortSlide) -> bool:
        """Whether the slide's results are there and whole, and what is wanted."""
        return is_done(self.results(slide)) and not (self._again and self.is_changed(slide))

    def is_changed(self, slide: CohortSlide) -> bool:
        """Whether the slide is another one than that which its results are of."""
        return is_changed(self.results(slide), slide.path)

    def is_begun(self, slide: CohortSlide) -> bool:
        """Whether a process is at the slide, or was."""
        path = Unfinished(self.results(slide), True).path
        return os.path.exists(path)  # noqa: PTH110 - which is no error of a name that is too long

    def forgive(self, slide: CohortSlide) -> None:
        """Count no death at the slide of a process that was ended on purpose."""
        Unfinished(self.results(slide), True).forgive()

    def failed_at(self, slide: CohortSlide) -> int | None:
        """A number that is another one for each failure; None where there is none."""
        try:
            return self._failure(slide).stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def failure(self, slide: CohortSlide) -> str | None:
        """Why the slide failed; None where it did not."""
        try:
            return str(json.loads(self._failure(slide).read_text(encoding="utf-8"))["message"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            return f"{self._failure(slide)}: is damaged"

    def fail(self, slide: CohortSlide, message: str, trace: str) -> None:
        """Note that the slide failed."""
        about = {"slide": str(slide.path), "results": slide.name, "message": message, "trace": trace.splitlines()}
        write_json(self._failure(slide), about)

    def forget_failure(self, slide: CohortSlide) -> None:
        """Note that the slide failed no more."""
        self._failure(slide).unlink(missing_ok=True)

    def _failure(self, slide: CohortSlide) -> Path:
        # a slide's name may be longer than a file's
        return self._hidden / "failed" / f"{hashlib.sha256(os.fsencode(slide.name)).hexdigest()[:32]}.json"
