"""One row a slide: what was measured, how long it took, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import is_file, is_folder
from lightmuseg.slides.finished import fault_of
from lightmuseg.slides.outcome import CHANGED_SINCE, DONE, FAILED
from lightmuseg.text_files import read_csv, read_json, unescaped, write_csv

from .cohort_slide import TABLE, CohortSlide
from .cohort_state import CohortState

STARTED, CHANGED, WAITING = "started", "changed", "waiting"
# of results whose slide the command does not name, or no more
NOT_NAMED = "not named"
FIRST = ("slide", "patient", "stain", "results", "status", "tiles", "unread_tiles")
LAST = ("warnings", "message")


class CohortTable:
    """The rows of a cohort, read from its folder, so that whoever writes them writes the same.

    Results that the last table had keep their row, though their slide is gone or is not named: as are those of another
    command that works in the same folder at the same time, for which the table is read again before it is written.
    """

    def __init__(self, slides: Sequence[CohortSlide], state: CohortState) -> None:
        self._slides, self._state, self._path = slides, state, state.folder / TABLE
        # results do not change once they are there
        self._measured: dict[str, dict[str, Any]] = {}
        self._named = {slide.name for slide in slides}
        self._not_named: list[dict[str, str]] = []
        self._read_at = 0.0

    def rows(self) -> list[dict[str, Any]]:
        """A row a slide in the order of their names; all have the same columns."""
        rows = [self._row(slide) for slide in self._slides]
        rows += [row for last in self._rows_not_named() if (row := self._row_not_named(last))]
        rows.sort(key=lambda row: (row["results"], row["slide"]))
        middle = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in (*FIRST, *LAST)]
        # areas and ratios before seconds, whichever slide comes first
        middle.sort(key=lambda name: name.startswith("seconds_"))
        return [{name: row.get(name, "") for name in (*FIRST, *middle, *LAST)} for row in rows]

    def write(self) -> list[dict[str, Any]]:
        """Write cohort.csv, and return its rows."""
        rows = self.rows()
        write_csv(self._path, rows)
        return rows

    def _rows_not_named(self) -> list[dict[str, str]]:
        """Rows of the last table whose slides are not among these; it is read where another process wrote it."""
        written_at = self._path.stat().st_mtime if is_file(self._path) else 0.0
        if written_at != self._read_at:
            self._read_at = written_at
            self._not_named = [row for row in _read(self._path) if row["results"] not in self._named]
        return self._not_named

    def _row_not_named(self, last: dict[str, str]) -> dict[str, Any] | None:
        folder = self._state.folder / last["results"]
        if not is_folder(folder):
            return None
        fault = fault_of(folder)
        if fault is not None:
            message = f"{folder}: {fault}; give its slide again, or delete the folder."
            return {**last, "status": FAILED, "message": message}
        message = f"{folder}: its slide is not named any more; delete the folder where it is not wanted."
        return {**last, **_measured(folder), "status": NOT_NAMED, "message": message}

    def _row(self, slide: CohortSlide) -> dict[str, Any]:
        row: dict[str, Any] = {
            "slide": str(slide.path), "patient": slide.patient, "stain": slide.stain, "results": slide.name,
        }  # fmt: skip
        if slide.fault:
            return {**row, "status": FAILED, "message": slide.fault}
        if slide.name not in self._measured and self._state.is_done(slide):
            measured = _measured(self._state.results(slide))
            is_changed = self._state.is_changed(slide)
            changed = {"status": CHANGED, "message": CHANGED_SINCE} if is_changed else {}
            self._measured[slide.name] = {"status": DONE, **measured, **changed}
        if slide.name in self._measured:
            return {**row, **self._measured[slide.name]}
        failure = self._state.failure(slide)
        if failure is not None:
            return {**row, "status": FAILED, "message": failure}
        return {**row, "status": STARTED if self._state.is_started(slide) else WAITING}


def _read(table: Path) -> list[dict[str, str]]:
    """What a table says of its slides; nothing where there is none, or one that others spoilt."""
    try:
        rows = read_csv(table)
    except (OSError, InputError):
        return []
    about = [{name: unescaped(row.get(name, "")) for name in ("slide", "patient", "stain", "results")} for row in rows]
    return [row for row in about if _is_inner(row["results"])]


def _is_inner(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and not any(part in ("/", "..") or "\0" in part for part in parts)


def _measured(folder: Path) -> dict[str, Any]:
    """What a slide's folder of results says in numbers; where it is damaged a message instead."""
    try:
        record = read_json(folder / "run.json", "delete the folder")
        measures = {row["measure"]: row["value"] for row in read_csv(folder / "measurements.csv")}
        return {
            "tiles": record["tiles"],
            "unread_tiles": record["unread_tiles"],
            **measures,
            **{f"seconds_{stage}": seconds for stage, seconds in record["seconds"].items()},
            "warnings": "; ".join(map(str, record.get("warnings", []))),
            "message": " ".join(map(str, record.get("notes", []))),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"message": f"{folder}: is damaged; delete it to have the slide done anew."}
