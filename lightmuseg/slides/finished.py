"""A slide's folder of results: whether it is complete, which slide it belongs to, and how older results are kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.files import is_file, show, sync_tree
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import read_csv, read_json, unescaped
from lightmuseg.wsi.identity import is_same

RECORD, MEASUREMENTS = "run.json", "measurements.csv"
MAPS = ("classes.tif", "classes.ome.tif")
# what a slide's folder of results can be
ABSENT, DONE, CHANGED, BROKEN, OTHER = "absent", "done", "changed", "broken", "other"
# ending of a folder of very many files
ARRAYS = ".zarr"
MOST_RECORD_BYTES = 50_000_000
# faults of a folder that a line names
MOST_NAMED = 3


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of each file in a folder of results, by its name with / between folders; but of the record.

    A folder ``*.zarr``, which may hold a hundred thousand files, is one of them: with the bytes of all, and the hash of
    their names and hashes.
    """
    return {
        name: {"bytes": _bytes(path), "sha256": _sha256(path)}
        for name, path in sorted(_files(folder, ARRAYS))
        if name != RECORD
    }


def state_of(folder: Path, slide: Path) -> tuple[str, str]:
    """What a slide's folder of results is, and what is wrong with it where it is broken.

    Returns:
        ABSENT; DONE, whole and of this slide; CHANGED, whole and of what the slide was before; BROKEN; or OTHER, which
        is no slide's results.
    """
    if not os.path.lexists(folder):
        return ABSENT, ""
    if not _is_of_slide(folder):
        return OTHER, ""
    fault = fault_of(folder)
    if fault is not None:
        return BROKEN, fault
    return CHANGED if is_changed(folder, slide) else DONE, ""


def _is_of_slide(folder: Path) -> bool:
    """Whether a folder has the record of a slide's results, which may be damaged; a training's is none."""
    return is_file(folder / RECORD) and not _is_other_record(folder)


def is_done(folder: Path) -> bool:
    """Whether a slide's results are there, all of them, with their sizes."""
    return is_file(folder / RECORD) and fault_of(folder) is None


def fault_of(folder: Path, hashes: bool = False) -> str | None:
    """What is wrong with a folder of results, in a few words; None where nothing is.

    Results of before run.json listed files are whole where none of them is empty, and map and measurements are there.

    Args:
        folder: that holds a record.
        hashes: look at each file's bytes too, not only at its size.
    """
    try:
        record = read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)
        if "slide" not in record:
            return f"{RECORD} is of no slide"
        listed = record["files"] if "files" in record else _expected(folder)
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
    """Whether a slide is another one than that which a folder of results is of; False where nobody can know, as of a
    slide that cannot be read now.
    """
    try:
        identity = read_json(folder / RECORD, "delete it", MOST_RECORD_BYTES)["slide_identity"]
        return not is_same(slide, identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def name_aside(folder: Path, slide: Path) -> Path:
    """The hidden name that a folder of results can be kept by when new ones get its own.

    Raises:
        InputError: where it is no folder of a slide's results, or holds the slide.
    """
    holds_slide = folder.resolve() in (slide.resolve(), *slide.resolve().parents)
    if holds_slide or not _is_of_slide(folder):
        raise InputError(f"{folder}: is there already and holds no results; choose another --output, or move it away.")
    number = 1
    while os.path.lexists(kept := folder.with_name(f".{folder.name}.kept-{number}")):
        number += 1
    return kept


def show_instead(results: Path, folder: Path, kept: Path) -> None:
    """Show results as ``folder``, whose former ones get the name ``kept``; nothing is lost, whatever fails.

    Raises:
        OSError: where something cannot be written or renamed.
    """
    # before the former ones go, for this is what may fail
    sync_tree(results)
    folder.rename(kept)
    try:
        show(results, folder)
    except BaseException:
        if not folder.exists():
            kept.rename(folder)
        raise


def folders_with_record(root: Path, unseen: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """The folders in a folder, at any depth, that hold a record or measurements, in the order of their names.

    Hidden folders and arrays are left out.

    Args:
        root: where to begin.
        unseen: takes the error of each folder that cannot be looked into; the others go on.
    """
    for folder, folders, files in os.walk(root, onerror=unseen):
        folders[:] = sorted(name for name in folders if name[0] != "." and not name.endswith(ARRAYS))
        if RECORD in files or MEASUREMENTS in files:
            yield Path(folder)


def folders_of_results(root: Path, unseen: Callable[[OSError], None] | None = None) -> list[Path]:
    """Those of :func:`folders_with_record` that hold results of slides; a training has a record too."""
    found = folders_with_record(root, unseen)
    return [folder for folder in found if is_file(folder / MEASUREMENTS) or not _is_other_record(folder)]


def said_done(root: Path) -> list[Path]:
    """The folders of results that the tables of ``segment`` and ``cohort`` in a folder say are there."""
    found = []
    for row in _rows(root / "cohort.csv"):
        name = PurePosixPath(unescaped(row.get("results", "")))
        # nothing outside is meant
        is_inner = name.parts and not name.is_absolute() and ".." not in name.parts
        if row.get("status") in ("done", "changed", "not named") and is_inner:
            found.append(root / name)
    for row in _rows(root / "report.csv"):
        slide = Path(unescaped(row.get("slide", "")))
        if row.get("status") == "done" and slide.name not in ("", ".."):
            # of a slide that is gone nobody knows whether it was a folder
            names = [root / slide.name, root / slide.stem]
            found.append(next((path for path in names if is_file(path / RECORD)), names[1]))
    return list(dict.fromkeys(found))


def _rows(table: Path) -> list[dict[str, str]]:
    return read_csv(table) if is_file(table) else []


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


def _expected(folder: Path) -> dict[str, None]:
    """The files of results of before run.json listed them: all that are there, and those that always were."""
    there = [name for name, _ in _files(folder)]
    own = next((name for name in MAPS if name in there), MAPS[0])
    return dict.fromkeys([*there, MEASUREMENTS, own])


def _files(folder: Path, whole: str | None = None) -> Iterator[tuple[str, Path]]:
    """The files in a folder with their names; folders that end in ``whole`` are not looked into."""
    for inner, folders, names in os.walk(folder, onerror=_raise):
        entire = [name for name in folders if whole and name.endswith(whole)]
        folders[:] = [name for name in folders if name not in entire]
        for name in (*names, *entire):
            path = Path(inner, name)
            yield path.relative_to(folder).as_posix(), path


def _raise(error: OSError) -> None:
    raise error


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for _, file in _files(path)) if path.is_dir() else path.stat().st_size


def _sha256(path: Path) -> str:
    if not path.is_dir():
        return sha256_of(path)
    digest = hashlib.sha256()
    for name, file in sorted(_files(path)):
        # what is no file, as a pipe, might never end
        digest.update(json.dumps([name, sha256_of(file) if file.is_file() else ""]).encode())
    return digest.hexdigest()


def _fault(path: Path, about: dict[str, Any] | None, hashes: bool) -> str:
    """What is wrong with a file; "" where nothing is."""
    try:
        if not path.is_file() and (path.suffix != ARRAYS or not path.is_dir()):
            path.stat()
            return f"{path.name} is no file"
        size = _bytes(path)
        if about is None:
            return "" if size else f"{path.name} is empty"
        if size != about["bytes"]:
            return f"{path.name} has {size} bytes, not {about['bytes']}"
        if hashes and _sha256(path) != about["sha256"]:
            return f"{path.name} has other bytes"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    return ""
