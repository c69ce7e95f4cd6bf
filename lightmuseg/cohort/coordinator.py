"""A cohort from the list of its slides to the table of their results."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.text_files import read_json

from .cohort_page import write_page
from .cohort_state import CohortState
from .cohort_table import CohortTable
from .local_workers import LocalWorkers
from .ray_workers import RayWorkers
from .slide_worker import Task, work
from .supervisor import Workers, supervise
from .tally import Tally
from .work_list import TABLE, shard_of, work_list

logger = logging.getLogger(__name__)

# seconds after which the folder is looked at again, and the table written anew
LOOK_S, TABLE_S = 1.0, 60.0
# slides among which one is looked for that can be read, to prove the runtime on
PROOF = 20
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
    bundle: Path | None = None,
    override: Path | None = None,
    values: dict[str, Any] | None = None,
    engine: str = "local",
    address: str = "",
    slides_at_once: int | None = None,
    gpus_per_worker: float | None = None,
    shard: str = "",
    progress: Callable[[Tally], None] = lambda tally: None,
) -> CohortRun:
    """Segment slides that have no results yet, and write cohort.csv and cohort.html of all, regularly and at the end.

    Args:
        sources: folders, globs, tables of slides, or slides.
        output: folder of the results, which are called as the slides are below the folder that is searched.
        bundle, override, values: of the network and the options, as :func:`.make_segmenter` takes them.
        engine: "local", processes of this machine; or "ray".
        address: of a Ray cluster; "" to begin one of this machine.
        slides_at_once: number of workers; None for one a device.
        gpus_per_worker: share of a GPU that one of Ray's workers gets; None for a whole one.
        shard: "i/n" to do only the i-th of n parts.
        progress: called before the work, about each second, and at the end.

    Raises:
        InputError: for sources and options that cannot be, a folder that was started with others, or a full disk.
        KeyboardInterrupt: by Ctrl-C, or as a scheduler ends a job, by SIGTERM.
    """
    # workers may have another working directory
    values = {name: value.absolute() if isinstance(value, Path) else value for name, value in (values or {}).items()}
    _check(engine, address, slides_at_once, gpus_per_worker, values)
    output = output.absolute()
    slides = work_list(sources, output)
    own = shard_of(slides, shard) if shard else slides
    state = CohortState(
        output, _does_changed_again(values, override, bundle and bundle / "configs" / "inference_wsi.json")
    )
    table, tally = CohortTable(slides, state), Tally(own, state)
    progress(tally)
    if not tally.pending:
        _write(table, output)
        return CohortRun(tally.done, len(tally.failed), 0.0, 0.0)
    started = time.monotonic()
    proof = tuple(slide for slide in slides if not slide.fault)[:PROOF]
    task = Task(
        output, bundle and bundle.absolute(), override and override.absolute(), values, proof, tuple(tally.pending),
        tally.failures_before,
    )  # fmt: skip
    workers = _workers(task, engine, address, slides_at_once, gpus_per_worker)

    def look() -> None:
        tally.look()
        progress(tally)

    def write() -> None:
        _write(table, output)

    look_regularly, write_regularly = _Regularly(look, LOOK_S), _Regularly(write, TABLE_S)
    loaded = 0.0
    try:
        with _sigterm_as_interrupt():
            for _ in work(task) if workers is None else supervise(workers, tally):
                loaded = loaded or time.monotonic()
                look_regularly()
                write_regularly()
    finally:
        ended = time.monotonic()
        # before a worker has seen that the cohort is one of these options nothing is written
        if loaded:
            look()
            write()
    return CohortRun(tally.done, len(tally.failed), loaded - started, ended - loaded)


class _Regularly:
    """Call a function each so many seconds at most, and so seldom that it takes a twentieth of the time."""

    def __init__(self, function: Callable[[], None], every_s: float) -> None:
        self._function, self._every_s = function, every_s
        self._due = time.monotonic() + every_s

    def __call__(self) -> None:
        started = time.monotonic()
        if started >= self._due:
            self._function()
            ended = time.monotonic()
            self._due = ended + self._every_s + 20 * (ended - started)


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


def _workers(
    task: Task, engine: str, address: str, slides_at_once: int | None, gpus: float | None
) -> Workers | None:  # fmt: skip
    """What runs the task; None for this process alone."""
    if engine == "ray":
        return RayWorkers(task, address, slides_at_once, gpus)
    devices = [None] if "device" in task.values else _gpus() or [None]
    count = min(slides_at_once or len(devices), len(task.slides))
    if count == 1 and len(devices) == 1:
        return None
    threads = max(1, (os.cpu_count() or 1) // count)
    return LocalWorkers(dataclasses.replace(task, threads=threads), [devices[n % len(devices)] for n in range(count)])


def _gpus() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def _write(table: CohortTable, output: Path) -> None:
    try:
        write_page(output, table.write())
    except OSError as error:
        # of a full disk the run says so itself; the next one writes the table anew
        logger.warning("%s: not written (%s)", output / TABLE, user_fault(error))


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
