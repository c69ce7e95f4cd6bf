"""Text, JSON and tables as files."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError, first_line
from lightmuseg.files import write_whole

# What a spreadsheet takes for a formula, behind the apostrophes that mark text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, whole; what is no Unicode, as a file's name may be, as JSON and Python escape it."""
    write_whole(path, lambda temporary: temporary.write_bytes(text.encode("utf-8", "backslashreplace")))


def unescaped(text: str) -> str:
    """What is no Unicode as it was before :func:`write_text`, such as a file's name that is no UTF-8."""
    return re.sub(r"\\udc([89a-f][0-9a-f])", lambda found: chr(0xDC00 + int(found[1], 16)), text)


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON, whole."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: str | Path, remedy: str, most_bytes: int = 50_000_000) -> Any:
    """What a JSON file in UTF-8 holds.

    Args:
        path: of the file.
        remedy: what a user can do about one that cannot be read.
        most_bytes: a larger file is not read, since memory takes many times as much.

    Raises:
        InputError: where it is larger, a pipe or device, or no JSON.
        OSError: where there is none.
    """
    path = Path(path)
    state = path.stat()
    if not stat.S_ISREG(state.st_mode) or state.st_size > most_bytes:
        raise InputError(f"{path}: is no file of at most {most_bytes / 1e6:.0f} MB; {remedy}.")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError as error:
        raise InputError(f"{path}: not readable as JSON (nested too deeply); {remedy}.") from error
    except ValueError as error:
        raise InputError(f"{path}: not readable as JSON ({first_line(error)}); {remedy}.") from error


def text_of(content: bytes) -> str:
    """The text of a file that somebody else's program wrote, without its byte order mark.

    UTF-8, UTF-16 and UTF-32 are told apart by the first bytes, of which JSON and tables have plain letters; what is
    none of them is taken for cp1252, which Windows' programs in Western languages write, and which includes Latin-1.

    Raises:
        UnicodeDecodeError: for UTF-16 or UTF-32 that is cut short.
    """
    encoding = json.detect_encoding(content)
    if encoding != "utf-8":
        return content.decode(encoding).removeprefix("\ufeff")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # five bytes that cp1252 leaves open are Latin-1's
        return re.sub(
            "[\udc80-\udcff]", lambda found: chr(ord(found[0]) - 0xDC00), content.decode("cp1252", "surrogateescape")
        )


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``rows`` as a table, whole; its columns are their keys, those of the first row first.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, which :func:`read_csv` takes away.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))

    file = io.StringIO(newline="")
    table = csv.writer(file)
    table.writerow(map(_guarded, columns))
    table.writerows([_guarded(row.get(name, "")) for name in columns] for row in rows)
    write_text(path, file.getvalue())


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table of :func:`write_csv`, as text; what a row lacks is "".

    Raises:
        InputError: where it is no table.
        OSError: where there is none.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [[_plain(cell) for cell in row] for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is no CSV file in UTF-8 ({first_line(error)}); move it away.") from error
    columns = rows[0] if rows else []
    return [dict(zip_longest(columns, row[: len(columns)], fillvalue="")) for row in rows[1:]]


def _guarded(value: Any) -> Any:
    text = str(value)
    if not _FORMULA.match(text):
        return value
    try:
        float(text)
    except ValueError:
        # text that has one already gets another, so that it can be read as it was
        return f"'{text}"
    return value


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
