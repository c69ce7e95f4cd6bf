"""What a worker does: it loads the network once, then takes the slides that no other worker holds."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.process import keep_heap_small, load_light_monai, send_no_telemetry
from lightmuseg.slides.bundle_config import make_segmenter
from lightmuseg.slides.outcome import BUSY, DISK_FULL, DONE, FAILED, attempt, is_disk_full

from .cohort_slide import CohortSlide
from .cohort_state import CohortState

# seconds after which the slides that other processes hold are looked at again
AGAIN_S = 5.0
# options that change only what is written of the map, which all slides of a cohort have in common
WRITTEN = ("ome", "dicom_seg", "tolerance")


@dataclass(frozen=True)
class Task:
    """What all workers of a command do; plain values, for they cross to other processes and machines.

    Attributes:
        output: the cohort's folder.
        bundle, override, values: of the model and the options, as :func:`.make_segmenter` takes them.
        proof: slides, on the first of which that can be read the runtime is proven.
        slides: to segment.
        failures: that were there before, as :meth:`.CohortState.failures` gives them; these slides are tried again.
        threads: of a worker; None for as many as the machine has.
        owns_process: whether its process does nothing else, and may be set up for that; see :mod:`lightmuseg.process`.
    """

    output: Path
    bundle: Path | None
    override: Path | None
    values: dict[str, Any]
    proof: tuple[CohortSlide, ...]
    slides: tuple[CohortSlide, ...]
    failures: dict[str, int]
    threads: int | None = None
    owns_process: bool = False


def work(task: Task) -> Iterator[CohortSlide | None]:
    """Load the network, then segment slides until all are done or have failed, here or elsewhere.

    Yields:
        None when the network is loaded; then as :func:`take_slides`.

    Raises:
        InputError: for options that cannot be, or others than the cohort was started with, or a full disk.
    """
    try:
        worker = SlideWorker(task)
        yield None
        yield from take_slides(task.slides, task.failures, worker.state, worker)
    except Exception as error:
        fault = user_fault(error)
        if fault is None:
            raise
        raise InputError(fault) from error


def take_slides(
    slides: Sequence[CohortSlide],
    failures: Mapping[str, int],
    state: CohortState,
    segment: Callable[[CohortSlide], str],
) -> Iterator[CohortSlide | None]:
    """Segment the slides that nobody holds; those that other processes hold are looked at again after the others.

    Args:
        slides: in order; those that others process now, or at which a process died, come last.
        failures: of before, which are tried again; a slide that has failed since is not.
        segment: segments a slide, and returns the status of its :class:`.Outcome`.

    Yields:
        Each slide before it is tried; None before waiting for other processes.
    """
    waiting = sorted(slides, key=state.may_be_fatal)
    while waiting:
        held = []
        for slide in waiting:
            if state.is_done(slide) or state.has_failed_since(slide, failures):
                continue
            yield slide
            if segment(slide) == BUSY:
                held.append(slide)
        if held:
            yield None
            for _ in range(10):
                # a worker that is stopped learns of it between two sleeps
                time.sleep(AGAIN_S / 10)
        waiting = held


class SlideWorker:
    """Segment slides of a cohort with one network."""

    def __init__(self, task: Task) -> None:
        if task.owns_process:
            load_light_monai()
            send_no_telemetry()
        import torch

        from lightmuseg.runtimes import kind_of

        # results that are there are left, whatever a config says
        values = {**task.values, "output_dir": task.output, "resume": True}
        if task.threads is not None:
            torch.set_num_threads(task.threads)
            values.setdefault("workers", task.threads)
        if not (task.bundle or task.override) and (kind := kind_of(CohortState(task.output).noted())):
            # what the cohort's first worker took by default, on this machine or another
            values.setdefault("runtime", kind)
        segmenter = make_segmenter(values, task.bundle, [task.override] if task.override else [])
        self._runtime = segmenter.runtime([(slide.path, slide.mpp) for slide in task.proof])
        if task.owns_process and not self._runtime.info.is_torch_on_cpu:
            keep_heap_small()
        self._options, self._model = segmenter.options, segmenter.describe()
        self.state = CohortState(task.output, self._options.changed)
        written = {name: getattr(self._options, name) for name in WRITTEN}
        model = {name: value for name, value in self._model.items() if name != "threads"}
        self.state.begin({**self._options.identity(), **written, **model})

    def __call__(self, slide: CohortSlide) -> str:
        """Segment a slide, note where it failed, and return the status of its outcome; a full disk is an error."""
        mpp = self._options.slide_mpp if slide.mpp is None else slide.mpp
        options = dataclasses.replace(self._options, output_dir=self.state.results(slide).parent, slide_mpp=mpp)
        outcome = attempt(slide.path, self._runtime, options, self._model, unattended=True)
        status, message = outcome.status, outcome.message
        try:
            if status == FAILED:
                self.state.fail(slide, message, outcome.trace)
            elif status == DONE:
                self.state.forget_failure(slide)
        except OSError as error:
            if not is_disk_full(error, self.state.folder):
                raise
            status, message = DISK_FULL, user_fault(error) or str(error)
        if status == DISK_FULL:
            raise InputError(
                f"{self.state.folder}: {os.strerror(errno.ENOSPC)}; free some space and give the same command again, "
                f"which goes on from here. What failed meanwhile: {message}"
            )
        return status
