"""The folder of results of a slide that is done: whether it is whole, of which slide it is, and its being kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import sync_folder
from lightmuseg.record import is_file, read_json, sha256_of

from .identity import is_same

RECORD, MEASUREMENTS = "run.json", "measurements.csv"
# with it a hundred thousand files are listed, the chunks of probabilities of a large slide
MOST_RECORD_BYTES = 50_000_000
# faults of a folder that a line names
MOST_NAMED = 3


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file in a folder of results, by its name with / between folders; but of the record."""
    return {
        name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for name, path in sorted(_files(folder))
        if name != RECORD
    }


def is_done(folder: Path) -> bool:
    """Whether a slide's results are there, all of them, with their sizes."""
    return is_file(folder / RECORD) and fault_of(folder) is None


def fault_of(folder: Path, hashes: bool = False) -> str | None:
    """What is wrong with a folder of results, in a few words; None where nothing is.

    Results of before run.json listed files are whole where none of them is empty.

    Args:
        folder: that holds a record.
        hashes: look at each file's bytes too, not only at its size.
    """
    try:
        record = read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)
        listed = record.get("files", {name: None for name, _ in _files(folder)})
        if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in listed):
            return f"{RECORD} is damaged"
        faults = [said for name, about in listed.items() if (said := _fault(folder / name, about, hashes))]
    except FileNotFoundError:
        return f"{RECORD} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{RECORD} is damaged"
    more = f" and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
    return ", ".join(faults[:MOST_NAMED]) + more if faults else None


def is_changed(folder: Path, slide: Path) -> bool:
    """Whether a slide is another one than that which a folder of results is of; False where nobody can know."""
    try:
        identity = read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)["slide_identity"]
        return not is_same(slide, identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def set_aside(folder: Path, slide: Path) -> Path:
    """Give a folder of results another, hidden name, so that new ones get its own; nothing in it is lost.

    Raises:
        InputError: where it is no folder of results, or holds the slide.
    """
    if not (folder / RECORD).is_file() or folder.resolve() in (slide.resolve(), *slide.resolve().parents):
        raise InputError(f"{folder}: is there already and holds no results; choose another --output, or move it away.")
    number = 1
    while os.path.lexists(kept := folder.with_name(f".{folder.name}.kept-{number}")):
        number += 1
    folder.rename(kept)
    sync_folder(folder.parent)
    return kept


def folders_of_results(root: Path) -> list[Path]:
    """The folders of results of slides in a folder, at any depth, in the order of their names; hidden ones left out.

    A training has a run.json too, which is left out where it can be read and tells of no slide.
    """
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name[0] != "." and not name.endswith(".zarr"))
        if MEASUREMENTS in files or (RECORD in files and not _is_other_record(Path(folder))):
            found.append(Path(folder))
            folders.clear()
    return found


def verified(folder: Path) -> tuple[str | None, bool]:
    """What is wrong with a folder of results by its files' hashes, and whether its record lists them."""
    try:
        listed = "files" in read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)
    except (OSError, ValueError, TypeError):
        listed = False
    return fault_of(folder, hashes=True), listed


def _is_other_record(folder: Path) -> bool:
    try:
        return "slide" not in read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)
    except (OSError, ValueError, TypeError):
        return False


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for inner, _, names in os.walk(folder):
        for name in names:
            path = Path(inner, name)
            yield path.relative_to(folder).as_posix(), path


def _fault(path: Path, about: dict[str, Any] | None, hashes: bool) -> str:
    """What is wrong with a file; "" where nothing is."""
    try:
        state = path.stat()
        size = state.st_size
        if not stat.S_ISREG(state.st_mode):
            return f"{path.name} is no file"
        if about is None:
            return "" if size else f"{path.name} is empty"
        if size != about["bytes"]:
            return f"{path.name} has {size} bytes, not {about['bytes']}"
        if hashes and sha256_of(path) != about["sha256"]:
            return f"{path.name} has other bytes"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return ""
