"""A cohort from the list of its slides to the table of their results."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from lightmuseg.errors import InputError, user_fault
from lightmuseg.slides.bundle_config import CONFIG
from lightmuseg.text_files import read_json

from .cohort_page import write_page
from .cohort_slide import TABLE
from .cohort_state import CohortState
from .cohort_table import CohortTable
from .local_workers import LocalWorkers
from .ray_workers import RayWorkers
from .slide_worker import Task, work
from .supervisor import Workers, supervise
from .tally import Tally
from .work_list import shard_of, work_list

logger = logging.getLogger(__name__)

# seconds after which the folder is looked at again, and the table written anew
LOOK_S, TABLE_S = 1.0, 60.0
# slides among which one is looked for that can be read, to prove the runtime on
PROOF = 20
# failures before the start that the log names
MOST_LOGGED = 20
ENGINES = ("local", "ray")


class CohortRun(NamedTuple):
    """How many of a command's slides are done, those of before too, how many failed, and how many are neither."""

    done: int
    failed: int
    pending: int


def segment_cohort(
    sources: Sequence[str],
    output: Path,
    bundle: Path | None = None,
    override: Path | None = None,
    values: dict[str, Any] | None = None,
    *,
    engine: str = "local",
    address: str = "",
    slides_at_once: int | None = None,
    gpus_per_worker: float | None = None,
    shard: str = "",
    owns_process: bool = False,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> CohortRun:
    """Segment slides that have no results yet, and write cohort.csv and cohort.html of all, regularly and at the end.

    Args:
        sources: folders, globs, tables of slides, or slides.
        output: folder of the results, which are called as the slides are below the folder that is searched.
        bundle, override, values: of the model and the options, as :func:`.make_segmenter` takes them.
        engine: "local", processes of this machine; or "ray".
        address: of a Ray cluster; "" to start one of this machine.
        slides_at_once: number of workers; None for one a device.
        gpus_per_worker: share of a GPU that one of Ray's workers gets; None for a whole one.
        shard: "i/n" to do only the i-th of n parts.
        owns_process: whether this process does nothing else; see :class:`.Task`.
        progress: is called before the work, about each second, and at the end.

    Raises:
        InputError: for sources and options that cannot be, a folder that was started with others, or a full disk.
    """
    # workers may have another working directory
    values = {name: value.absolute() if isinstance(value, Path) else value for name, value in (values or {}).items()}
    _check(engine, address, slides_at_once, gpus_per_worker, values)
    output = output.absolute()
    slides = work_list(sources, output)
    state = CohortState(output, _redoes_changed(values, override, bundle and bundle / "configs" / CONFIG))
    tally = Tally(shard_of(slides, shard) if shard else slides, state)
    watch = _Watch(tally, CohortTable(slides, state), output, progress)
    watch.look()
    if not tally.pending:
        watch.write()
        return CohortRun(tally.done, len(tally.failed), len(tally.pending))
    proof = tuple(slide for slide in slides if not slide.fault)[:PROOF]
    task = Task(
        output, bundle and bundle.absolute(), override and override.absolute(), values, proof, tuple(tally.pending),
        tally.failures_before, owns_process=owns_process,
    )  # fmt: skip
    workers = _workers(task, engine, address, slides_at_once, gpus_per_worker)
    watch.follow(work(task) if workers is None else supervise(workers, tally))
    return CohortRun(tally.done, len(tally.failed), len(tally.pending))


class _Watch:
    """Look at the cohort's folder and write its table, each so seldom that it takes a twentieth of the time at most."""

    def __init__(self, tally: Tally, table: CohortTable, output: Path, progress: Callable[[Tally], None]) -> None:
        self._tally, self._table, self._output, self._progress = tally, table, output, progress
        self._logged: set[str] = set()
        self._look_due, self._table_due = 0.0, time.monotonic() + TABLE_S

    def follow(self, steps: Generator[Any, None, None]) -> None:
        """Look on while ``steps`` are taken, and once more at the end, whatever that is."""
        is_loaded = False
        try:
            with closing(steps):
                for _ in steps:
                    is_loaded = True
                    self()
        finally:
            self.look(anew=True)
            # nothing is written before a worker has seen that the cohort is one of these options
            if is_loaded:
                self.write()

    def __call__(self) -> None:
        now = time.monotonic()
        if now >= self._look_due:
            self.look()
            self._look_due = _due_after(now, LOOK_S)
        if now >= self._table_due:
            self.write()
            self._table_due = _due_after(now, TABLE_S)

    def look(self, anew: bool = False) -> None:
        """Bring the tally up to date, log which slides failed since, and show it."""
        self._tally.look(anew)
        new = [message for name, message in self._tally.failed.items() if name not in self._logged]
        if not self._logged and len(new) > MOST_LOGGED:
            new[MOST_LOGGED:] = [f"{len(new) - MOST_LOGGED} more; see {self._output / TABLE}"]
        for message in new:
            logger.error("%s", message)
        self._logged.update(self._tally.failed)
        self._progress(self._tally)

    def write(self) -> None:
        """Write the table and the page."""
        try:
            write_page(self._output, self._table.write())
        except OSError as error:
            # of a full disk the run says so itself; the next one writes the table anew
            logger.warning("%s: not written (%s)", self._output / TABLE, user_fault(error))


def _due_after(started: float, every_s: float) -> float:
    ended = time.monotonic()
    return ended + every_s + 20 * (ended - started)


def _redoes_changed(values: dict[str, Any], *configs: Path | None) -> bool:
    """Whether slides that changed are done again, as the command has it, or the first config that sets it.

    Only a config's text is read: to parse it a library would be loaded that takes longer than all else here.
    """
    contents: list[Any] = [values]
    for path in filter(None, configs):
        with suppress(InputError, OSError):
            contents.append(read_json(path, "correct it"))
    return next((one["changed"] is True for one in contents if isinstance(one, dict) and "changed" in one), False)


def _check(engine: str, address: str, slides_at_once: int | None, gpus: float | None, values: dict[str, Any]) -> None:
    if engine not in ENGINES:
        raise InputError(f"--engine {engine}: is none of {', '.join(ENGINES)}.")
    if engine != "ray" and (address or gpus is not None):
        raise InputError(f"{'--address' if address else '--gpus-per-worker'}: is of Ray; add --engine ray.")
    if slides_at_once is not None and slides_at_once < 1:
        raise InputError(f"--slides-at-once {slides_at_once}: give 1 or more.")
    if gpus is not None and not 0 <= gpus <= 1:
        raise InputError(f"--gpus-per-worker {gpus}: give a share of one GPU, 0 to 1.")
    if values.get("runtime") == "auto":
        raise InputError(
            "--runtime auto: each process would time anew, and two might disagree; give the one that "
            "'lightmuseg segment --runtime auto' names."
        )


def _workers(
    task: Task, engine: str, address: str, slides_at_once: int | None, gpus: float | None
) -> Workers | None:  # fmt: skip
    """What runs the task; None for this process alone."""
    theirs = dataclasses.replace(task, owns_process=True)
    if engine == "ray":
        return RayWorkers(theirs, address, slides_at_once, gpus)
    devices = [None] if "device" in task.values else _gpus() or [None]
    count = min(slides_at_once or len(devices), len(task.slides))
    if count == 1 and len(devices) == 1:
        return None
    threads = max(1, (os.cpu_count() or 1) // count)
    return LocalWorkers(dataclasses.replace(theirs, threads=threads), [devices[n % len(devices)] for n in range(count)])


def _gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
