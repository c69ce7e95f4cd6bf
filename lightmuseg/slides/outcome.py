"""What becomes of one slide among many: whatever is wrong with it, the others go on."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.record import require_space

from .job import AlreadyThere, SlideJob
from .unfinished import NEEDED_BYTES, Busy

DONE, FAILED, BUSY, DISK_FULL = "done", "failed", "busy", "disk full"


@dataclass(frozen=True)
class Outcome:
    """How the work at a slide ended.

    Attributes:
        status: DONE; FAILED; BUSY, where another process is at it; DISK_FULL, which is not the slide's fault.
        message: one line that says why, or that it was done before.
        record: of the results that were made.
        trace: of a bug.
    """

    status: str
    message: str = ""
    record: dict[str, Any] | None = None
    trace: str = ""


def attempt(job: SlideJob) -> Outcome:
    """Run a job; an error becomes its outcome."""
    before = Outcome(DONE, "was done before")
    if job.options.resume and is_done(job.folder):
        # of a run that was killed after its last step
        shutil.rmtree(job.partial, ignore_errors=True)
        return before
    try:
        return Outcome(DONE, record=job.run())
    except Busy as error:
        return Outcome(BUSY, str(error))
    except Exception as error:
        if isinstance(error, AlreadyThere) and job.options.resume and is_done(job.folder):
            return before
        fault, trace = user_fault(error), ""
        if fault is None:
            trace = traceback.format_exc()
            fault = f"{job.slide}: {type(error).__name__}: {error}"
        return Outcome(DISK_FULL if is_disk_full(error, job.folder.parent) else FAILED, fault, trace=trace)


def is_done(folder: Path) -> bool:
    """Whether a slide's folder of results is there."""
    return os.path.isfile(folder / "run.json")  # noqa: PTH113 - which is no error of a name that is too long


def is_disk_full(error: BaseException | None, folder: Path) -> bool:
    """Whether an error says so, or the disk does: not every library passes on why it could not write."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    try:
        require_space(folder, NEEDED_BYTES)
    except InputError as refusal:
        cause = refusal.__cause__
        return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
    return False
