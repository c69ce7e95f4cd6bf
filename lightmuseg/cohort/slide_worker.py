"""What a process does: it loads the network once, then takes whole slides."""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.process import keep_heap_small, load_light_monai, send_no_telemetry
from lightmuseg.slides.outcome import DISK_FULL, DONE, FAILED, attempt, is_disk_full

from .cohort_state import CohortState
from .work_list import CohortSlide

READY, REFUSED, BROKEN = "ready", "refused", "broken"
# They say where and how fast it is made, which workers need not have in common.
FREE = ("output_dir", "resume", "changed", "workers")


@dataclass(frozen=True)
class Task:
    """What all workers of a cohort do; plain values, for they cross to other processes and machines.

    Attributes:
        output: the cohort's folder.
        bundle, override, values: of the network and the options, as :func:`.load_segmenter` takes them.
        proof: slides, on the first of which that can be read the runtime is proven.
        threads: of a worker; None for as many as the machine has.
    """

    output: Path
    bundle: Path
    override: Path | None
    values: dict[str, Any]
    proof: tuple[CohortSlide, ...]
    threads: int | None = None


@dataclass(frozen=True)
class Report:
    """What a worker says of a slide, or of loading the network: no more than a few words cross between processes.

    Attributes:
        status: of an :class:`.Outcome`; READY; REFUSED, for a user's fault in the options; BROKEN, of a bug.
        message: one line; of BROKEN the traceback.
    """

    status: str
    message: str = ""


class SlideWorker:
    """Segment slides of a cohort with one network.

    Args:
        task: what is to be done.

    Raises:
        InputError: for options that cannot be, or others than the cohort was begun by.
    """

    def __init__(self, task: Task) -> None:
        load_light_monai()
        send_no_telemetry()
        import torch

        from lightmuseg.slides.bundle_config import load_segmenter

        # results that are there are left, whatever a config says
        values = {**task.values, "resume": True}
        if task.threads is not None:
            torch.set_num_threads(task.threads)
            values.setdefault("workers", task.threads)
        self._state = CohortState(task.output)
        slides = [(str(slide.path), slide.mpp) for slide in task.proof]
        try:
            self._segmenter = load_segmenter(task.bundle, task.override, slides, task.output, values)
        except RuntimeError as error:
            # as which MONAI passes on what the parts of a config raise
            fault = user_fault(error)
            if fault is None:
                raise
            raise InputError(fault) from error
        if not self._segmenter.runtime.info.is_torch_on_cpu:
            keep_heap_small()
        options = {name: value for name, value in self._segmenter.options.plain().items() if name not in FREE}
        model = {name: value for name, value in self._segmenter.model.items() if name != "threads"}
        self._state.begin({**options, **model})

    def __call__(self, slide: CohortSlide) -> Report:
        """Segment a slide, and note where it failed; a folder of results says itself that it is done."""
        options = dataclasses.replace(
            self._segmenter.options,
            output_dir=self._state.results(slide).parent,
            slide_mpp=self._segmenter.options.slide_mpp if slide.mpp is None else slide.mpp,
        )
        outcome = attempt(slide.path, self._segmenter.runtime, options, self._segmenter.model, unattended=True)
        try:
            if outcome.status == FAILED:
                self._state.fail(slide, outcome.message, outcome.trace)
            elif outcome.status == DONE:
                self._state.forget_failure(slide)
        except OSError as error:
            if not is_disk_full(error, self._state.folder):
                raise
            return Report(DISK_FULL, user_fault(error) or str(error))
        return Report(outcome.status, outcome.message)


def guarded(call: Callable[[], Report]) -> Report:
    """What a call reports; an error as a report, because errors of every library do not cross between processes."""
    try:
        return call()
    except InputError as error:
        return Report(REFUSED, " ".join(str(error).split()))
    except Exception as error:
        fault = user_fault(error)
        return Report(BROKEN, traceback.format_exc()) if fault is None else Report(REFUSED, fault)


def refuse(report: Report) -> None:
    """Raise what a report says that no slide is to blame for.

    Raises:
        InputError: of a user's fault.
        RuntimeError: of a bug.
    """
    raise RuntimeError(report.message) if report.status == BROKEN else InputError(report.message)
