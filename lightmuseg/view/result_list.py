"""The results of segmented slides in a folder, as far as their records describe them."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, first_line
from lightmuseg.slides.finished import MEASUREMENTS, RECORD, folders_with_record
from lightmuseg.text_files import read_csv, read_json
from lightmuseg.wsi.tiff import MPP_RANGE

logger = logging.getLogger(__name__)

# Of many slides, in the output folder of the commands: columns slide, status and message.
TABLES = ("cohort.csv", "report.csv")
# A record holds paths and options; one that is larger is not ours.
MAX_RECORD_BYTES = 10_000_000
MAX_SIDE = 2_000_000
# Two indices above are no classes: unread, and the other colour of its stripes.
MAX_CLASSES = 253
MAX_WARNINGS, MAX_TEXT = 100, 500


# compared by identity: a record that has not changed keeps its Result
@dataclass(frozen=True, eq=False)
class Result:
    """A folder of results, as its record describes it.

    Attributes:
        id: by which pages ask for it; made of its place.
        version: changes when the folder is made anew.
        folder: of the files.
        place: of the folder below the root.
        slide: the file or folder that was segmented.
        backend: the reader that opened it.
        series: number of the picture in the slide's file; None where it is not known.
        level0_size, map_size: (width, height) of the slide and of the class map.
        level0_mpp, map_mpp: um/px of them.
        class_names: of the map's indices from 1.
        warnings: lines about the slide.
        areas_mm2: of the measurements, by name, such as "tumor" or "tissue".
        has_report: whether there is a page to print.
    """

    id: str
    version: str
    folder: Path
    place: str
    slide: Path
    backend: str
    series: int | None
    level0_size: tuple[int, int]
    level0_mpp: float
    map_size: tuple[int, int]
    map_mpp: float
    class_names: tuple[str, ...]
    warnings: tuple[str, ...]
    areas_mm2: dict[str, float]
    has_report: bool

    def file(self, *names: str) -> Path:
        """The first of these files that is in the folder.

        Raises:
            InputError: where there is none, or it is a link that leads elsewhere.
        """
        for name in names:
            path = self.folder / name
            if path.is_file() and path.resolve().parent == self.folder:
                return path
        raise InputError(f"{self.folder}: has no {' or '.join(names)}; segment the slide again.")


class Results:
    """The results below a folder, at any depth; hidden folders are left out, and links are not followed.

    Args:
        root: the folder, such as the output of ``lightmuseg segment`` or ``cohort``.

    Attributes:
        skipped: place and reason of each run.json that is not of a segmented slide.
        failed: slide and reason of each that failed, by the tables in the root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        # by place: the version, and the result or why there is none
        self._known: dict[str, tuple[str, Result | str]] = {}
        self._by_id: dict[str, Result] = {}
        self._lock = threading.Lock()

    def get(self, id_: str) -> Result | None:
        """The result of an id of the last listing."""
        return self._by_id.get(id_)

    def refresh(self) -> list[Result]:
        """All results that are there now, by place; only what is new is read."""
        with self._lock:
            places = {folder.relative_to(self.root).as_posix(): folder for folder in folders_with_record(self.root)}
            self._known = {place: self._look_at(folder, place) for place, folder in places.items()}
            self.skipped = {place: found for place, (_, found) in self._known.items() if isinstance(found, str)}
            self.failed = {slide: reason for name in TABLES for slide, reason in _failures(self.root / name).items()}
            results = [found for _, found in self._known.values() if isinstance(found, Result)]
            self._by_id = {result.id: result for result in results}
            return sorted(results, key=lambda result: result.place)

    def _look_at(self, folder: Path, place: str) -> tuple[str, Result | str]:
        path, version = folder / RECORD, ""
        try:
            state = os.lstat(path)
            version = _short_hash(f"{state.st_mtime_ns} {state.st_size} {state.st_ino}")
            known = self._known.get(place)
            return known if known is not None and known[0] == version else (version, _read(folder, place, version))
        except (InputError, OSError) as error:
            reason = _reason(error, path)
            logger.warning(f"{path}: left out: {reason}")
            return version, reason


def _read(folder: Path, place: str, version: str) -> Result:
    path, report = folder / RECORD, folder / "report.html"
    if path.is_symlink():
        raise InputError(f"{path}: is a link.")
    record = read_json(path, "segment the slide again", MAX_RECORD_BYTES)
    if not isinstance(record, dict) or "slide" not in record:
        raise InputError(f"{path}: is no record of a segmented slide.")
    if not isinstance(record.get("options"), dict):
        raise InputError(f"{path}: has no options.")

    def checked(name: str, is_valid: Callable[[Any], bool], values: dict[str, Any] = record) -> Any:
        if not is_valid(value := values.get(name)):
            raise InputError(f"{path}: its {name} is {str(value)[:80]!r}, which cannot be.")
        return value

    picture, warnings = record.get("picture"), record.get("warnings")
    series = picture.get("series") if isinstance(picture, dict) else None
    lines = warnings[:MAX_WARNINGS] if isinstance(warnings, list) else []
    return Result(
        id=_short_hash(place),
        version=version,
        folder=folder,
        place=place if place != "." else folder.name,
        slide=Path(checked("slide", _is_text)),
        backend=checked("reader", _is_text),
        series=series if _is_whole(series, 0) else None,
        level0_size=tuple(checked("level0_size", _is_size)),
        level0_mpp=checked("level0_mpp", _is_mpp),
        map_size=tuple(checked("map_size", _is_size)),
        map_mpp=checked("map_mpp", lambda value: _is_mpp(value, 64)),
        class_names=tuple(checked("class_names", _are_names, record["options"])),
        warnings=tuple(line[:MAX_TEXT] for line in lines if isinstance(line, str)),
        areas_mm2=_areas(folder / MEASUREMENTS),
        has_report=report.is_file() and not report.is_symlink(),
    )


def _is_text(value: Any, longest: int = 4096) -> bool:
    return isinstance(value, str) and 0 < len(value) < longest and "\0" not in value


def _is_whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_SIDE


def _is_size(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_is_whole(side, 1) for side in value)


def _is_mpp(value: Any, times: float = 1) -> bool:
    return type(value) in (int, float) and MPP_RANGE[0] <= value <= MPP_RANGE[1] * times


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list) and 1 <= len(value) <= MAX_CLASSES and all(_is_text(name, MAX_TEXT) for name in value)
    )


def _areas(path: Path) -> dict[str, float]:
    """The areas of measurements.csv in mm2; none where it is missing or foreign."""
    try:
        areas = {
            row["measure"].removesuffix("_area"): float(row.get("value", ""))
            for row in _rows(path)
            if row.get("unit") == "mm2" and row.get("measure", "").endswith("_area")
        }
    except ValueError as error:
        logger.warning(f"{path}: cannot be read ({_reason(error, path)}); the page shows no areas.")
        return {}
    return {name: area for name, area in areas.items() if math.isfinite(area)}


def _failures(path: Path) -> dict[str, str]:
    """Slide and reason of each row of a table that failed; none where it is missing or foreign."""
    try:
        failed = [row for row in _rows(path) if row.get("status") == "failed"]
    except (ValueError, OSError) as error:
        logger.warning(f"{path}: cannot be read ({_reason(error, path)}); the page does not say what failed.")
        return {}
    return {row.get("slide", "")[:MAX_TEXT]: row.get("message", "")[:MAX_TEXT] for row in failed}


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is no file of the folder itself, or larger than ours are."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_RECORD_BYTES:
        return []
    return read_csv(path)


def _reason(error: Exception, path: Path) -> str:
    """The message of an error about a file, without the file's path."""
    return first_line(error).removeprefix(f"{path}: ")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
