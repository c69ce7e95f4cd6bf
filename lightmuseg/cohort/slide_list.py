"""A table of slides, and what is known of each."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightmuseg.errors import InputError, first_line
from lightmuseg.text_files import text_of, unescaped
from lightmuseg.wsi.tiff import checked_mpp

SUFFIXES = (".csv", ".tsv", ".txt")
COLUMNS = ("slide", "mpp", "patient", "stain")
MAX_BYTES = 50_000_000
# between cells: a comma, or what Excel writes where a comma stands in numbers, and what other programs do
DELIMITERS = ",;\t|"
# Excel's word for it, alone in the first line
_SAID = re.compile(r'"?sep=(.)"?[,;\t|]*', re.IGNORECASE)
# lines that a cell in quotes may have: behind one that is never closed only these are lost
MAX_LINES = 50


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        place: the table and the line, for messages.
        path: of the slide; None where the line names none that could be.
        mpp: um/px of level 0; None for what the slide's file says.
        patient, stain: as the line says.
        fault: why the slide cannot be segmented, in one line; "" where it can be tried.
    """

    place: str
    path: Path | None
    mpp: float | None = None
    patient: str = ""
    stain: str = ""
    fault: str = ""


def read_manifest(path: Path) -> list[Row]:
    """The rows of a table with a column ``slide``, and ``mpp``, ``patient`` and ``stain`` where it has them.

    It is read as spreadsheets write it: with commas, semicolons or tabs, with a line ``sep=``, in any encoding of
    :func:`.text_of`, with decimal commas and empty rows. A row that is wrong has a fault, and the others stand.

    Args:
        path: of the file; relative paths in it begin in its folder, and may have backslashes.

    Raises:
        InputError: for a file that is no such table, or of more than 50 MB.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise InputError(f"{path}: {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}; split the table.")
    try:
        text = text_of(path.read_bytes())
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is no text ({first_line(error)}); export it again as CSV.") from error
    lines = list(io.StringIO(text, newline=""))
    said = _SAID.fullmatch(lines[0].strip(" \r\n")) if lines else None
    lines[:1] = [] if said else lines[:1]
    first = 2 if said else 1
    delimiter, columns, start = _header(path, lines, said[1] if said else None)
    rows = []
    for number, cells in _records(lines, start, delimiter):
        if isinstance(cells, csv.Error) or any(map(str.strip, cells)):
            rows.append(_row(path, f"{path}, line {number + first}", columns, cells))
    return _without_repeats(rows)


def _header(path: Path, lines: Sequence[str], said: str | None) -> tuple[str, list[str], int]:
    """What stands between cells, the columns, and the index of the line behind them."""
    start = next((index for index, line in enumerate(lines) if line.strip()), 0)
    line = lines[start] if lines else ""
    found = {}
    for delimiter in said or DELIMITERS:
        try:
            names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error as error:
            raise InputError(f"{path}: is no table ({error}); export it again as CSV.") from error
        found[delimiter] = [name.strip().lower() for name in names]
    fitting = {delimiter: names for delimiter, names in found.items() if "slide" in names}
    if not fitting:
        names = max(found.values(), key=len)
        raise InputError(
            f"{path}: has no column 'slide' but {', '.join(names)[:200] or 'none'}; name the slides' column so."
        )
    if all(len(names) == 1 for names in fitting.values()):
        # of one column nothing stands between: a name may have any of them
        return "\x1f", ["slide"], start + 1
    (delimiter, columns), *others = fitting.items()
    twice = [name for name in COLUMNS if columns.count(name) > 1]
    if others or twice:
        what = f"two columns '{twice[0]}'" if twice else "commas and other signs between its columns"
        raise InputError(f"{path}: has {what}; export it again with one.")
    return delimiter, columns, start + 1


def _records(lines: Sequence[str], start: int, delimiter: str) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The cells of each record with the index of its first line; an error for a line with quotes that do not fit."""
    while start < len(lines):
        options = {"delimiter": delimiter, "skipinitialspace": True}
        reader = csv.reader(lines[start : start + MAX_LINES], strict=True, **options)
        cells: list[str] | csv.Error
        try:
            cells, used = next(reader), reader.line_num
        except csv.Error as error:
            cells, used = error, 1
            # by hand, such as "a.tif" ;0.25
            if lines[start].count('"') % 2 == 0:
                with suppress(csv.Error):
                    cells = next(csv.reader(lines[start : start + 1], **options))
        yield start, cells
        start += used


def _row(manifest: Path, place: str, columns: Sequence[str], cells: list[str] | csv.Error) -> Row:
    if isinstance(cells, csv.Error):
        return Row(
            place, None, fault=f"{place}: its quotes do not fit, or a cell is too long ({cells}); correct the line."
        )
    texts = {name: text.strip() for name, text in zip(columns, cells) if name in COLUMNS}
    slide, mpp, patient, stain = (texts.get(name, "") for name in COLUMNS)
    if not slide:
        return Row(place, None, fault=f"{place}: names no slide; fill in its column 'slide', or delete the line.")
    if any(map(str.strip, cells[len(columns) :])):
        fault = f"{place}: has more cells than the first line has columns; put those with commas into quotes."
        return Row(place, None, fault=fault)
    try:
        path = _path(manifest, slide, place)
    except InputError as error:
        # where it would be, for the table of results
        missing = None if "\0" in slide else manifest.parent / slide
        return Row(place, missing, None, patient, stain, str(error))
    try:
        return Row(place, path, _mpp(path, mpp, place) if mpp else None, patient, stain)
    except InputError as error:
        return Row(place, path, None, patient, stain, str(error))


def _path(manifest: Path, slide: str, place: str) -> Path:
    """The file or folder that a cell names."""
    found = [manifest.parent / name for name in _spellings(slide) if os.path.lexists(manifest.parent / name)]
    slashes = manifest.parent / slide.replace("\\", "/")
    if len(found) > 1 and slashes in found[1:] and "\\" in slide:
        raise InputError(f"{place}: {slide} names two files, {found[0]} and {slashes}; rename one.")
    if not found:
        remedy = "correct or delete the line" if slide.isascii() else "correct the line, or export it as CSV in UTF-8"
        raise InputError(f"{place}: {slide}: no such file, seen from {manifest.parent.absolute()}; {remedy}.")
    return found[0]


def _spellings(slide: str) -> list[str]:
    """What a cell may mean: itself, escapes of a name that is no Unicode, its bytes before, or another form of accents;
    each with the slashes of Windows too.
    """
    names = [slide, unescaped(slide)]
    with suppress(UnicodeEncodeError):
        # a name that is no UTF-8, in a table whose other letters are none either
        names.append(os.fsdecode(slide.encode("cp1252")))
    names += [unicodedata.normalize(form, slide) for form in ("NFC", "NFD")]
    return list(dict.fromkeys([*names, *(name.replace("\\", "/") for name in names)]))


def _mpp(slide: Path, text: str, place: str) -> float:
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
        return checked_mpp(slide, number, "the column mpp")
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except ValueError as error:
        raise InputError(f"{place}: mpp {text} is no number; give um per pixel, such as 0.25, or nothing.") from error


def _without_repeats(rows: Sequence[Row]) -> list[Row]:
    """Each slide once; of lines that say different things of one slide all are faults, for nobody knows which holds."""
    by_path: dict[str, list[Row]] = {}
    for row in rows:
        by_path.setdefault(row.place if row.path is None else os.path.normpath(row.path), []).append(row)
    kept = []
    for same in by_path.values():
        if len({(row.mpp, row.patient, row.stain, bool(row.fault)) for row in same}) == 1:
            kept.append(same[0])
            continue
        places = ", ".join(row.place.rpartition(", ")[2] for row in same)
        fault = f"{same[0].place}: {same[0].path} stands in {places}, which differ; leave one of them."
        kept.append(Row(same[0].place, same[0].path, fault=fault))
    return kept
