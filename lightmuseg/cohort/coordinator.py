"""A cohort from the list of its slides to the table of their results."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.text_files import read_json

from .agenda import Agenda
from .cohort_page import write_page
from .cohort_progress import Progress
from .cohort_state import CohortState
from .cohort_table import CohortTable
from .here import Here
from .processes import Processes
from .ray_workers import RayWorkers
from .schedule import Pool, run
from .slide_worker import Task
from .work_list import TABLE, shard_of, work_list

# seconds after which the table is written anew
TABLE_S = 60.0
# slides among which one is looked for that can be read, to prove the runtime on
PROOF = 20
# lines on slides that cannot be tried
MAX_SAID = 20
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class CohortRun:
    """What became of a coordinator's slides.

    Attributes:
        done, failed: slides, those of before too.
        start_s: until the first worker could begin.
        slides_s: from then until the last slide ended.
    """

    done: int
    failed: int
    start_s: float
    slides_s: float


def segment_cohort(
    sources: Sequence[str],
    output: Path,
    bundle: Path,
    override: Path | None = None,
    values: dict[str, Any] | None = None,
    engine: str = "local",
    address: str = "",
    slides_at_once: int | None = None,
    gpus_per_worker: float | None = None,
    shard: str = "",
) -> CohortRun:
    """Segment slides that have no results yet, and write cohort.csv and cohort.html of all.

    Args:
        sources: folders, globs, tables of slides, or slides.
        output: folder of the results, which are called as the slides are below the folder that is searched.
        bundle, override, values: of the network and the options, as :func:`.run_bundle` takes them.
        engine: "local", processes of this machine; or "ray".
        address: of a Ray cluster; "" to begin one of this machine.
        slides_at_once: number of workers; None for one a device.
        gpus_per_worker: share of a GPU that one of Ray's workers gets; None for a whole one.
        shard: "i/n" to do only the i-th of n parts.

    Raises:
        InputError: for sources and options that cannot be, a folder that was begun by others, or a full disk.
        KeyboardInterrupt: when it is stopped, after it has said how to go on.
    """
    values = dict(values or {})
    _check(engine, address, slides_at_once, gpus_per_worker, values)
    output = output.absolute()
    slides = work_list(sources, output)
    own = shard_of(slides, shard) if shard else slides
    state = CohortState(output, _does_changed_again(values, override, bundle / "configs" / "inference_wsi.json"))
    table = CohortTable(slides, state)
    agenda = Agenda(own, state)
    _say(list(agenda.failed.values()), output)
    if not len(agenda):
        _write(table, output)
        return CohortRun(agenda.done, len(agenda.failed), 0.0, 0.0)
    begun = time.monotonic()
    proof = tuple(slide for slide in slides if not slide.fault)[:PROOF]
    task = Task(output, bundle.absolute(), override and override.absolute(), values, proof)
    pool = _pool(task, engine, address, slides_at_once, gpus_per_worker, len(agenda))
    with Progress(agenda) as progress, _Log(table, output) as log:
        try:
            run(pool, agenda, state.forgive, [progress.show, log.go_on], log.begin)
        except KeyboardInterrupt:
            print(f"\n{output}: stopped; the same command goes on where it was", file=sys.stderr)
            raise
    return CohortRun(agenda.done, len(agenda.failed), log.first - begun, log.last - log.first)


class _Log:
    """The table while slides are worked at, and when the first began and the last ended.

    Nothing is written before a worker has seen that the cohort is one of these options.
    """

    def __init__(self, table: CohortTable, output: Path) -> None:
        self._table, self._output = table, output
        self._due = math.inf
        self.first = self.last = 0.0

    def begin(self) -> None:
        self.first = self.last = time.monotonic()
        self._due = self.first + TABLE_S

    def go_on(self) -> None:
        self.last = time.monotonic()
        if self.last > self._due:
            _write(self._table, self._output)
            # however many slides there are, it takes a small part of the time
            self._due = time.monotonic() + TABLE_S + 20 * (time.monotonic() - self.last)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.first:
            _write(self._table, self._output)


def _does_changed_again(values: dict[str, Any], *configs: Path | None) -> bool:
    """Whether slides that changed are to be done again, as the command or the first config that says it has it.

    A config is asked by its text only: to parse it a library would be loaded that takes longer than all else here.
    """
    said = [values]
    for path in filter(None, configs):
        with suppress(InputError, OSError):
            said.append(read_json(path, "correct it"))
    return next((one["changed"] is True for one in said if isinstance(one, dict) and "changed" in one), False)


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


def _pool(task: Task, engine: str, address: str, slides_at_once: int | None, gpus: float | None, slides: int) -> Pool:
    if engine == "ray":
        return RayWorkers(task, address, slides_at_once, gpus)
    devices = [None] if "device" in task.values else _gpus() or [None]
    count = min(slides_at_once or len(devices), slides)
    if count == 1 and len(devices) == 1:
        return Here(task)
    threads = max(1, (os.cpu_count() or 1) // count)
    return Processes(dataclasses.replace(task, threads=threads), [devices[n % len(devices)] for n in range(count)])


def _gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def _say(faults: Sequence[str], output: Path) -> None:
    for fault in faults[:MAX_SAID]:
        print(f"lightmuseg: error: {fault}", file=sys.stderr)
    if len(faults) > MAX_SAID:
        print(f"lightmuseg: error: {len(faults) - MAX_SAID} more; see {output / TABLE}", file=sys.stderr)


def _write(table: CohortTable, output: Path) -> None:
    try:
        write_page(output, table.write())
    except OSError as error:
        # of a full disk the run says so itself; the next one writes the table anew
        print(f"\nlightmuseg: warning: {output / TABLE}: not written ({user_fault(error)})", file=sys.stderr)
