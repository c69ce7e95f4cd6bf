"""Many slides, one after the other, and a report of all."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightmuseg.classes import channels_of
from lightmuseg.errors import InputError
from lightmuseg.files import require_space
from lightmuseg.text_files import read_csv, write_csv
from lightmuseg.wsi.readers.dicom_series import one_of_each

from .job import result_name
from .options import Options
from .outcome import CHANGED_SINCE, DONE, attempt
from .unfinished import NEEDED_BYTES

if TYPE_CHECKING:
    from lightmuseg.runtimes import Runtime

logger = logging.getLogger(__name__)

REPORT = "report.csv"
COLUMNS = ("slide", "status", "tiles", "seconds", "unread_tiles", "warnings", "message")
Progress = Callable[[Path, int, int], None]


def segment_slides(
    slides: Sequence[str | Path], runtime: Runtime, options: Options, model: dict[str, Any],
    progress: Progress | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Make a folder of results for each slide, and ``report.csv`` of all in the output folder.

    A slide that fails is reported and the others go on.

    Args:
        slides: files, or folders of DICOM series.
        runtime: the network.
        options: of the run.
        model: what is recorded of the network as plain values, such as its weights' hash; the runtime's
            description is added.
        progress: is called with a slide, its tiles that are done and all its tiles.

    Returns:
        The rows of the report on these slides.

    Raises:
        InputError: for options that do not fit the network, and, after all slides, where one failed.
    """
    require_fit(runtime, options)
    model = {**model, **runtime.info.plain()}
    paths = one_of_each(Path(slide) for slide in slides)
    _refuse_same_names(paths)
    require_space(options.output_dir, NEEDED_BYTES)
    report = options.output_dir / REPORT
    rows = {row["slide"]: row for row in read_csv(report) if row.get("slide")} if report.is_file() else {}
    made = []
    for path in paths:
        row = _segmented(path, runtime, options, model, progress)
        rows[row["slide"]] = row
        made.append(row)
        if row["status"] == "failed" and len(paths) > 1:
            logger.error("%s", row["message"])
        try:
            write_csv(report, list(rows.values()))
        except OSError as error:
            # a full disk is reported for the slide; when there is room for the next slide there is for the report
            logger.warning("%s: not written (%s)", report, error.strerror)
    failed = [row for row in made if row["status"] == "failed"]
    if failed and len(paths) == 1:
        raise InputError(failed[0]["message"])
    if failed:
        raise InputError(f"{len(failed)} of {len(paths)} slides failed; see {report}.")
    return made


def require_fit(runtime: Runtime, options: Options) -> None:
    """Refuse a network that has other classes or a coarser output than the options say.

    Raises:
        InputError: with what to change.
    """
    channels = channels_of(options.class_names)
    if runtime.out_channels != channels:
        raise InputError(
            f"the network has {runtime.out_channels} outputs, not {channels} for the classes "
            f"{', '.join(options.class_names)}; give the config that it was trained with."
        )
    if options.factor % runtime.output_stride:
        raise InputError(
            f"the network gives one value for {runtime.output_stride} pixels, too few for a map of "
            f"{options.mpp * options.factor:g} um/px; give --output_mpp {options.mpp * runtime.output_stride:g}."
        )


def _segmented(
    path: Path, runtime: Runtime, options: Options, model: dict[str, Any], progress: Progress | None
) -> dict[str, Any]:
    """The row of the report on a slide."""
    try:
        outcome = attempt(path, runtime, options, model, progress=progress and functools.partial(progress, path))
    except KeyboardInterrupt:
        logger.warning("%s: stopped; --resume continues from there", path)
        raise
    if outcome.trace:
        logger.error("%s", outcome.trace.rstrip())
    if outcome.message == CHANGED_SINCE:
        logger.warning("%s: %s", path, outcome.message)
    # as a table says it, so that the slide is found there again
    slide = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    row = {**dict.fromkeys(COLUMNS, ""), "slide": slide, "message": outcome.message}
    row["status"] = "done" if outcome.status == DONE else "failed"
    if outcome.record is not None:
        row |= {name: outcome.record[name] for name in ("tiles", "unread_tiles")}
        row["seconds"] = round(sum(outcome.record["seconds"].values()), 1)
        row["warnings"] = " ".join(outcome.record["warnings"])
    return row


def _refuse_same_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("no slide is given; name at least one.")
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(result_name(path), path)
        if other is not path:
            raise InputError(f"{path}: would have the same folder of results as {other}; give them to two calls.")
