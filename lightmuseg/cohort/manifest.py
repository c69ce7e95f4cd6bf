"""A table of slides, and what is known of each."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from lightmuseg.data.tiff import checked_mpp
from lightmuseg.errors import InputError, first_line


def read_manifest(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a column ``slide``, and ``mpp``, ``patient`` and ``stain`` where it has them.

    Args:
        path: of the file; its slides are relative to its folder, and below it.

    Returns:
        Rows with the file's own columns, and ``path``: the slide's path in the folder of the manifest.

    Raises:
        InputError: for a table that cannot be read, and a row whose slide is missing, elsewhere or there twice, or
            whose ``mpp`` cannot be.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = [str(name).strip().lower() for name in table.fieldnames or []]
            table.fieldnames = columns
            rows = [(table.line_num, row) for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({first_line(error)}); export it again.") from error
    if "slide" not in columns:
        raise InputError(
            f"{path}: has no column 'slide' but {', '.join(columns) or 'none'}; name the slides' column so."
        )
    lines: dict[str, int] = {}
    checked = []
    for line, row in rows:
        place = f"{path}, line {line}"
        values = {name: (row.get(name) or "").strip() for name in ("slide", "mpp", "patient", "stain")}
        values["path"] = _inner_path(path, values["slide"], place)
        first = lines.setdefault(values["path"], line)
        if first != line:
            raise InputError(f"{place}: {values['slide']} stands in line {first} already; leave one of the two out.")
        if values["mpp"]:
            _check_mpp(path.parent / values["path"], values["mpp"], place)
        checked.append(values)
    return checked


def _inner_path(manifest: Path, slide: str, place: str) -> str:
    if not slide:
        raise InputError(f"{place}: names no slide; fill in its column 'slide', or delete the line.")
    base = manifest.parent.absolute()
    inner = os.path.relpath(os.path.normpath(base / slide), os.path.normpath(base))
    if inner == "." or Path(inner).parts[0] == ".." or "\0" in slide:
        raise InputError(f"{place}: {slide} is not below {manifest.parent}; move the manifest into a folder above it.")
    if not os.path.lexists(base / inner):
        raise InputError(f"{place}: {slide}: no such file below {manifest.parent}; mend or delete the line.")
    return inner


def _check_mpp(slide: Path, mpp: str, place: str) -> None:
    try:
        checked_mpp(slide, float(mpp), "the column mpp")
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    except ValueError as error:
        raise InputError(f"{place}: mpp {mpp} is no number; give um per pixel, such as 0.25, or nothing.") from error
