"""What becomes of one slide among many: whatever is wrong with it, the others go on."""

from __future__ import annotations

import errno
import shutil
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.files import require_space

from . import finished
from .finished import state_of
from .job import AlreadyThere, SlideJob
from .options import Options
from .unfinished import NEEDED_BYTES, Busy

if TYPE_CHECKING:
    from lightmuseg.runtimes import Runtime

DONE, FAILED, BUSY, DISK_FULL = "done", "failed", "busy", "disk full"
CHANGED_SINCE = "the slide changed since it was done; --changed does it again"


@dataclass(frozen=True)
class Outcome:
    """How the segmentation of a slide ended.

    Attributes:
        status: DONE; FAILED; BUSY, where another process holds it; DISK_FULL, which is not the slide's fault.
        message: one line that says why, or that it was done before.
        record: of the results that were made.
        trace: of a bug.
    """

    status: str
    message: str = ""
    record: dict[str, Any] | None = None
    trace: str = ""


def attempt(
    slide: Path, runtime: Runtime, options: Options, model: dict[str, Any], unattended: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Outcome:  # fmt: skip
    """Make and run a :class:`.SlideJob`; an error becomes its outcome."""
    try:
        return _run(SlideJob(slide, runtime, options, model, unattended, progress))
    except Busy as error:
        return Outcome(BUSY, str(error))
    except Exception as error:
        fault, trace = user_fault(error), ""
        if fault is None:
            trace = traceback.format_exc()
            fault = f"{slide}: {type(error).__name__}: {error}"
        return Outcome(DISK_FULL if is_disk_full(error, options.output_dir) else FAILED, fault, trace=trace)


def _run(job: SlideJob) -> Outcome:
    before = done_before(job.folder, job.slide, job.options)
    if before is not None:
        if before.message != CHANGED_SINCE:
            # of a run that was killed after its last step; else it may be what is to replace the results
            shutil.rmtree(job.partial, ignore_errors=True)
        return before
    try:
        record = job.run()
    except AlreadyThere:
        # another process may have ended meanwhile
        before = done_before(job.folder, job.slide, job.options)
        if before is not None:
            return before
        raise
    return Outcome(DONE, " ".join(record["notes"]), record)


def done_before(folder: Path, slide: Path, options: Options) -> Outcome | None:
    """How a slide ended whose folder of results a resumed run leaves as it is; None where it is to be done."""
    if not options.resume:
        return None
    state, _ = state_of(folder, slide)
    if state == finished.DONE:
        return Outcome(DONE, "was done before")
    return Outcome(DONE, CHANGED_SINCE) if state == finished.CHANGED and not options.changed else None


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
