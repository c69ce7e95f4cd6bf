"""The command on very many slides."""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from .arguments import given, takes_options_of
from .slide_commands import OUTPUT, segment_options


@takes_options_of(segment_options)
def cohort(
    *slides: str,
    output: str = OUTPUT,
    engine: str = "local",
    address: str = "",
    slides_at_once: int | None = None,
    gpus_per_worker: float | None = None,
    shard: str = "",
    changed: bool | None = None,
    **options: Any,
) -> None:
    """Segment all slides that have no results in OUTPUT yet; the same command goes on after any stop.

    Args:
        slides: a folder, a glob in quotes, or a table (.csv, .tsv, .txt) with a column slide and, where known,
            mpp, patient and stain.
        output: folder of the folders of results, and of cohort.csv and cohort.html; by default lightmuseg_results.
        engine: local, one process a device of this machine; or ray.
        address: of a Ray cluster, such as auto; without it Ray is started on this machine.
        slides_at_once: number of workers; by default one a device.
        gpus_per_worker: with Ray, share of a GPU that a worker gets, such as 0.5; by default 1.
        shard: i/n does the i-th of n parts, counted from 1, for arrays of jobs.
        changed: do slides again whose file changed since; the former results are kept as .NAME.kept-1.
    """
    if not slides:
        raise InputError("lightmuseg cohort: no slide is given; name a folder, a glob or a table of slides.")
    bundle, override, values = segment_options(**options)
    values |= given(changed=changed)
    from lightmuseg.cohort import CohortBar, segment_cohort

    # as a scheduler ends a job: like Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with closing(CohortBar()) as bar:
        try:
            run = segment_cohort(
                slides, Path(output), bundle, override, values, engine=engine, address=address,
                slides_at_once=slides_at_once, gpus_per_worker=gpus_per_worker, shard=shard, owns_process=True,
                progress=bar,
            )  # fmt: skip
        except KeyboardInterrupt:
            print(f"\n{output}: stopped; the same command goes on where it was", file=sys.stderr)
            raise
    if run.failed:
        raise InputError(
            f"{run.failed} of {run.done + run.failed} slides failed; see {Path(output) / 'cohort.csv'}; the same "
            "command tries them again."
        )
    if run.pending:
        raise InputError(
            f"{output}: {run.pending} slides are neither done nor failed; the same command tries them again."
        )
    print(f"{output}: {run.done} slides; see cohort.csv and cohort.html")
