"""A table of slides, and what is known of each."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lightmuseg.errors import InputError, first_line
from lightmuseg.text_files import text_of, unescaped
from lightmuseg.wsi.tiff import checked_mpp

from .cohort_slide import CohortSlide, slide_at

SUFFIXES = (".csv", ".tsv", ".txt")
COLUMNS = ("slide", "mpp", "patient", "stain")
MAX_BYTES = 50_000_000
# between cells: a comma, or what Excel writes where a comma stands in numbers, and what other programs do
DELIMITERS = ",;\t|"
# Excel's word for it, alone in the first line
_SEP_LINE = re.compile(r'"?sep=(.)"?[,;\t|]*', re.IGNORECASE)
# lines that a cell in quotes may have: behind one that is never closed only these are lost
MAX_LINES = 50


def read_slide_table(path: Path) -> list[CohortSlide]:
    """The slides of a table with a column ``slide``, and ``mpp``, ``patient`` and ``stain`` where it has them.

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
    sep_line = _SEP_LINE.fullmatch(lines[0].strip(" \r\n")) if lines else None
    start = 1 if sep_line else 0
    delimiter, columns, start = _header(path, lines, start, sep_line[1] if sep_line else DELIMITERS)
    rows = []
    for number, cells in _records(lines, start, delimiter):
        if isinstance(cells, csv.Error) or any(map(str.strip, cells)):
            place = f"{path}, line {number + 1}"
            rows.append((place, _row(path, place, columns, cells)))
    return _without_repeats(rows)


def _header(path: Path, lines: Sequence[str], start: int, delimiters: str) -> tuple[str, list[str], int]:
    """Which of the delimiters stands between cells, the columns, and the index of the line behind them."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    line = lines[start] if start < len(lines) else ""
    found = {}
    for delimiter in delimiters:
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


def _row(manifest: Path, place: str, columns: Sequence[str], cells: list[str] | csv.Error) -> CohortSlide:
    def unnamed(fault: str) -> CohortSlide:
        return CohortSlide(Path(place).absolute(), Path(place).name, fault=f"{place}: {fault}")

    if isinstance(cells, csv.Error):
        return unnamed(f"its quotes do not fit, or a cell is too long ({cells}); correct the line.")
    texts = {name: text.strip() for name, text in zip(columns, cells) if name in COLUMNS}
    slide, mpp_text, patient, stain = (texts.get(name, "") for name in COLUMNS)
    if not slide:
        return unnamed("names no slide; fill in its column 'slide', or delete the line.")
    if any(map(str.strip, cells[len(columns) :])):
        return unnamed("has more cells than the first line has columns; put those with commas into quotes.")
    # where a file would be that is not there, for the table of results
    path, mpp, fault = manifest.parent / slide, None, ""
    try:
        path = _path(manifest, slide)
        mpp = _mpp(path, mpp_text) if mpp_text else None
    except InputError as error:
        if "\0" in slide:
            return unnamed(str(error))
        fault = f"{place}: {error}"
    found = slide_at(path, manifest.parent, mpp, patient, stain)
    return replace(found, fault=fault or found.fault)


def _path(manifest: Path, slide: str) -> Path:
    """The file or folder that a cell names."""
    found = [manifest.parent / name for name in _spellings(slide) if os.path.lexists(manifest.parent / name)]
    slashes = manifest.parent / slide.replace("\\", "/")
    if len(found) > 1 and slashes in found[1:] and "\\" in slide:
        raise InputError(f"{slide} names two files, {found[0]} and {slashes}; rename one.")
    if not found:
        remedy = "correct or delete the line" if slide.isascii() else "correct the line, or export it as CSV in UTF-8"
        raise InputError(f"{slide}: no such file, seen from {manifest.parent.absolute()}; {remedy}.")
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


def _mpp(slide: Path, text: str) -> float:
    try:
        number = float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)
    except ValueError as error:
        raise InputError(f"mpp {text} is no number; give um per pixel, such as 0.25, or nothing.") from error
    return checked_mpp(slide, number, "the column mpp")


def _without_repeats(slides: Sequence[tuple[str, CohortSlide]]) -> list[CohortSlide]:
    """Each slide once; of lines that say different things of one slide all are faults, for nobody knows which holds."""
    by_path: dict[Path, list[tuple[str, CohortSlide]]] = {}
    for line, slide in slides:
        by_path.setdefault(slide.path, []).append((line, slide))
    kept = []
    for same in by_path.values():
        (line, slide), *_ = same
        if len({(one.mpp, one.patient, one.stain, bool(one.fault)) for _, one in same}) > 1:
            lines = ", ".join(line.rpartition(", ")[2] for line, _ in same)
            fault = f"{line}: {slide.path} stands in {lines}, which differ; leave one of them."
            slide = replace(slide, mpp=None, patient="", stain="", fault=fault)
        kept.append(slide)
    return kept
