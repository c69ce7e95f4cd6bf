"""What a result rests on: versions, hashes, options; and the text, JSON and tables that say so."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

from lightmuseg import __version__
from lightmuseg.errors import InputError, first_line
from lightmuseg.files import make_folder, show, write_whole

PACKAGES = (
    "monai", "torch", "pytorch-ignite", "numpy", "scipy", "pillow", "tifffile", "nibabel", "cucim-cu13", "cucim-cu12",
    "scikit-image", "shapely", "simplejpeg", "rasterio", "openslide-python", "openslide-bin", "imagecodecs", "wsidicom",
    "highdicom", "zarr", "openvino", "nncf", "onnxruntime-gpu", "onnxruntime", "tensorrt-cu13",
)  # fmt: skip
# What a spreadsheet takes for a formula, behind the apostrophes that mark text.
_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def sha256_of(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def whole_folder(folder: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder beside ``folder`` to write into, which becomes ``folder`` when the block ends without an error.

    Raises:
        InputError: where it cannot be made, or ``needed_bytes`` do not fit.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        require_space(partial, needed_bytes)
        yield partial
        show(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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


def is_file(text: str | Path) -> bool:
    """Whether a text is the path of a file; no error where it is too long for one, or cannot be looked at."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def is_folder(text: str | Path) -> bool:
    """Whether a text is the path of a folder; as :func:`is_file`."""
    try:
        return Path(text).is_dir()
    except (OSError, ValueError):
        return False


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


def require_space(folder: str | Path, needed_bytes: int) -> None:
    """Make ``folder`` and prove that ``needed_bytes`` can be written into it.

    Raises:
        InputError: where it cannot be made or written, or its disk is too full.
    """
    folder = Path(folder)
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as probe:
            _reserve(probe, needed_bytes)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write {needed_bytes / 1e6:.0f} MB there ({error.strerror}); "
            "free some space or choose another output folder."
        ) from error


def _reserve(file: IO[bytes], needed_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, needed_bytes)
        return
    # elsewhere than on Linux only real bytes prove that there is room
    block = bytes(1 << 20)
    for start in range(0, needed_bytes, len(block)):
        file.write(block[: needed_bytes - start])
    file.flush()


def environment() -> dict[str, Any]:
    """Versions, machine and command of this process, for run records."""
    return {
        "lightmuseg": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The commit of the source tree this process loaded the package from; None where it is no git checkout."""
    if not (Path(__file__).parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
