"""Many slides, one after the other, and a report of all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

REPORT = "report.csv"


class SlideSegmenter:
    """Segment slides with one network.

    Args:
        runtime: the network.
        options: of the run.
        model: what is recorded of the network as plain values, such as its weights' hash.
    """

    def __init__(self, runtime: Runtime, options: Options, model: dict[str, Any]) -> None:
        channels = 1 if len(options.class_names) == 1 else 1 + len(options.class_names)
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
        self.runtime, self.options = runtime, options
        self.model = {**model, **runtime.info.plain()}

    def run(self, slides: str | Sequence[str]) -> list[dict[str, Any]]:
        """Make a folder of results for each slide, and ``report.csv`` of all in the output folder.

        A slide that fails is reported and the others go on.

        Args:
            slides: files, or folders of DICOM series.

        Returns:
            The rows of the report on these slides.

        Raises:
            InputError: where a slide failed, after the others.
        """
        paths = one_of_each(Path(slide) for slide in ([slides] if isinstance(slides, str) else slides))
        _refuse_same_names(paths)
        require_space(self.options.output_dir, NEEDED_BYTES)
        report = self.options.output_dir / REPORT
        rows, made = _read_report(report), []
        for path in paths:
            row = self._one(path)
            rows[row["slide"]] = row
            made.append(row)
            if row["status"] == "failed" and len(paths) > 1:
                print(f"\nlightmuseg: error: {row['message']}", file=sys.stderr)
            try:
                write_csv(report, list(rows.values()))
            except OSError as error:
                # of a full disk the slide has said so; one that takes a next slide takes the report too
                print(f"\nlightmuseg: warning: {report}: not written ({error.strerror})", file=sys.stderr)
        failed = [row for row in made if row["status"] == "failed"]
        if failed and len(paths) == 1:
            raise InputError(failed[0]["message"])
        if failed:
            raise InputError(f"{len(failed)} of {len(paths)} slides failed; see {report}.")
        return made

    def _one(self, path: Path) -> dict[str, Any]:
        try:
            outcome = attempt(path, self.runtime, self.options, self.model)
        except KeyboardInterrupt:
            print(f"\n{path}: stopped; --resume goes on where it was", file=sys.stderr)
            raise
        print(outcome.trace, end="", file=sys.stderr)
        columns = ("slide", "status", "tiles", "seconds", "unread_tiles", "warnings", "message")
        # as a table says it, so that the slide is found there again
        slide = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
        row = {**dict.fromkeys(columns, ""), "slide": slide, "message": outcome.message}
        row["status"] = "done" if outcome.status == DONE else "failed"
        record = outcome.record
        if outcome.message == CHANGED_SINCE:
            print(f"\nlightmuseg: warning: {path}: {outcome.message}", file=sys.stderr)
        if record is None:
            return row
        return {
            **row, "tiles": record["tiles"], "seconds": round(sum(record["seconds"].values()), 1),
            "unread_tiles": record["unread_tiles"], "warnings": " ".join(record["warnings"]),
        }  # fmt: skip


def _refuse_same_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise InputError("no slide is given; name at least one.")
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(result_name(path), path)
        if other is not path:
            raise InputError(f"{path}: would have the same folder of results as {other}; give them to two calls.")


def _read_report(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an earlier report by slide; none where there is none."""
    return {row["slide"]: row for row in read_csv(path) if row.get("slide")} if path.is_file() else {}
