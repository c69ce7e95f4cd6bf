"""What is in a folder of results: which slides were segmented, found by their run.json."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lightmuseg.errors import InputError, first_line
from lightmuseg.text_files import read_csv, read_json
from lightmuseg.wsi.tiff import MPP_RANGE

logger = logging.getLogger(__name__)

RECORD, MEASUREMENTS = "run.json", "measurements.csv"
# Of many slides, in the output folder of the commands: columns slide, status and message.
TABLES = ("cohort.csv", "report.csv")
MAPS = ("classes.tif", "classes.ome.tif")
# A record names its places and options; one that is larger is not ours.
MAX_RECORD_BYTES = 10_000_000
MAX_SIDE = 2_000_000
# Two indices above are no classes: unread, and the other colour of its hatching.
MAX_CLASSES = 253
MAX_WARNINGS, MAX_TEXT = 100, 500
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Result:
    """A folder of results, as far as its record tells.

    Attributes:
        id: by which pages ask for it; made of its place.
        version: changes when the folder is made anew.
        folder: of the files.
        place: of the folder below the root.
        slide: the file or folder that was segmented, as the record names it.
        backend: what read it.
        series: number of the picture in the slide's file; None where it is not known.
        level0_size: of the slide (width, height).
        level0_mpp: um/px of it.
        map_size: (width, height) of the class map.
        map_mpp: um/px of it.
        class_names: of the map's indices from 1.
        warnings: lines about the slide.
        areas_mm2: of the measurements, by name, such as "tumor" or "analysed_tissue".
        has_report: whether there is a page to print.
    """

    id: str
    version: str
    folder: Path = field(compare=False)
    place: str = field(compare=False)
    slide: Path = field(compare=False)
    backend: str = field(compare=False)
    series: int | None = field(compare=False)
    level0_size: tuple[int, int] = field(compare=False)
    level0_mpp: float = field(compare=False)
    map_size: tuple[int, int] = field(compare=False)
    map_mpp: float = field(compare=False)
    class_names: tuple[str, ...] = field(compare=False)
    warnings: tuple[str, ...] = field(compare=False)
    areas_mm2: dict[str, float] = field(compare=False)
    has_report: bool = field(compare=False)

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
    """The results below a folder, at any depth; what is hidden is left out, and links are not followed.

    Args:
        root: the folder, such as the output of ``lightmuseg segment`` or ``cohort``.

    Attributes:
        skipped: place and reason of each run.json that is none of a segmented slide.
        failed: slide and reason of each that failed, by the tables in the root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self._known: dict[str, tuple[str, Result | str]] = {}
        self._by_id: dict[str, Result] = {}
        self._lock = threading.Lock()

    def get(self, id_: str) -> Result | None:
        """The result of an id of the last listing."""
        return self._by_id.get(id_)

    def refresh(self) -> list[Result]:
        """All results that are there now, by place; only what is new is read."""
        with self._lock:
            found: dict[str, tuple[str, Result | str]] = {}
            for folder, folders, files in os.walk(self.root):
                # an OME-Zarr has a folder for each row of its chunks
                folders[:] = [name for name in folders if name[0] != "." and not name.endswith(".zarr")]
                if RECORD in files:
                    place = Path(folder).relative_to(self.root).as_posix()
                    found[place] = self._looked_at(Path(folder), place)
            self._known = found
            self.skipped = {place: said for place, (_, said) in found.items() if isinstance(said, str)}
            self.failed = {slide: reason for name in TABLES for slide, reason in _failures(self.root / name).items()}
            results = sorted(
                (said for _, said in found.values() if isinstance(said, Result)), key=lambda result: result.place
            )
            self._by_id = {result.id: result for result in results}
            return results

    def _looked_at(self, folder: Path, place: str) -> tuple[str, Result | str]:
        path, version = folder / RECORD, ""
        try:
            state = os.lstat(path)
            version = _short_hash(f"{state.st_mtime_ns} {state.st_size} {state.st_ino}")
            known = self._known.get(place)
            if known is not None and known[0] == version:
                return known
            return version, _read(folder, place, version)
        except (InputError, OSError) as error:
            reason = _reason(error, path)
            logger.warning(f"{path}: left out: {reason}")
            return version, reason


def _read(folder: Path, place: str, version: str) -> Result:
    path = folder / RECORD
    if path.is_symlink():
        raise InputError(f"{path}: is a link.")
    record = read_json(path, "segment the slide again", MAX_RECORD_BYTES)
    if not isinstance(record, dict) or "slide" not in record:
        raise InputError(f"{path}: is no record of a segmented slide.")
    options = record.get("options")
    if not isinstance(options, dict):
        raise InputError(f"{path}: has no options.")
    return Result(
        id=_short_hash(place),
        version=version,
        folder=folder,
        place=place if place != "." else folder.name,
        slide=Path(_checked(path, record, "slide", _text)),
        backend=_checked(path, record, "reader", _text),
        series=_series(record.get("picture")),
        level0_size=_checked(path, record, "level0_size", _size),
        level0_mpp=_checked(path, record, "level0_mpp", _mpp),
        map_size=_checked(path, record, "map_size", _size),
        map_mpp=_checked(path, record, "map_mpp", lambda value: _mpp(value, 64)),
        class_names=_checked(path, options, "class_names", _names),
        warnings=_warnings(record.get("warnings")),
        areas_mm2=_areas(folder / MEASUREMENTS),
        has_report=(folder / "report.html").is_file() and not (folder / "report.html").is_symlink(),
    )


def _checked(path: Path, record: dict[str, Any], name: str, check: Callable[[Any], _Value | None]) -> _Value:
    value = check(record.get(name))
    if value is None:
        raise InputError(f"{path}: its {name} is {str(record.get(name))[:80]!r}, which cannot be.")
    return value


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) < 4096 and "\0" not in value else None


def _series(picture: Any) -> int | None:
    number = picture.get("series") if isinstance(picture, dict) else None
    return number if type(number) is int and 0 <= number < MAX_SIDE else None


def _size(value: Any) -> tuple[int, int] | None:
    whole = isinstance(value, list) and len(value) == 2 and all(type(side) is int for side in value)
    return (value[0], value[1]) if whole and all(1 <= side <= MAX_SIDE for side in value) else None


def _mpp(value: Any, most_times: float = 1) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number and MPP_RANGE[0] <= value <= MPP_RANGE[1] * most_times else None


def _names(value: Any) -> tuple[str, ...] | None:
    whole = isinstance(value, list) and 1 <= len(value) <= MAX_CLASSES
    return tuple(value) if whole and all(_text(name) and len(name) < MAX_TEXT for name in value) else None


def _warnings(value: Any) -> tuple[str, ...]:
    lines = value if isinstance(value, list) else []
    return tuple(line[:MAX_TEXT] for line in lines[:MAX_WARNINGS] if isinstance(line, str))


def _areas(path: Path) -> dict[str, float]:
    """The areas of measurements.csv in mm2; none where it is missing or foreign."""
    areas: dict[str, float] = {}
    try:
        for row in _rows(path):
            if row.get("unit") == "mm2" and row.get("measure", "").endswith("_area"):
                value = float(row.get("value", ""))
                if math.isfinite(value):
                    areas[row["measure"].removesuffix("_area")] = value
    except ValueError as error:
        logger.warning(f"{path}: cannot be read ({_reason(error, path)}); the page shows no areas.")
        return {}
    return areas


def _failures(path: Path) -> dict[str, str]:
    """Slide and reason of each row of a table that failed; none where it is missing or foreign."""
    try:
        return {
            row.get("slide", "")[:MAX_TEXT]: row.get("message", "")[:MAX_TEXT]
            for row in _rows(path)
            if row.get("status") == "failed"
        }
    except (ValueError, OSError) as error:
        logger.warning(f"{path}: cannot be read ({_reason(error, path)}); the page does not tell what failed.")
        return {}


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; none where it is no file of the folder itself, or larger than ours are."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > MAX_RECORD_BYTES:
        return []
    return read_csv(path)


def _reason(error: Exception, path: Path) -> str:
    """What an error says of a file whose name is said already."""
    return first_line(error).removeprefix(f"{path}: ")


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
