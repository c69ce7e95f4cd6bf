"""Which slide a result is of: a file that another one has replaced is another slide."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from .readers import dicom_series
from .readers.dicom_series import is_dicom

# Bytes that are read of a slide: head and tail of each of its files, and places between.
PLACES, MOST_BYTES, LEAST_BYTES = 16, 1 << 20, 4096
# formats that keep pixels in a folder of the same name, and those that list the names of other files
_FOLDERS, _LISTS = (".mrxs",), (".vms", ".vmu")
# of a folder's look on Windows
_NO_PARTS = ("thumbs.db", "desktop.ini")
MOST_LIST_BYTES = 1 << 20


def files_of(slide: Path) -> list[Path]:
    """The files that a slide consists of: one, those of a DICOM series, or a file and its companions.

    Raises:
        InputError: where a DICOM series cannot be read; OSError where something cannot be looked at.
    """
    if slide.is_dir() or is_dicom(slide):
        return sorted(dicom_series.series_files(slide))
    ending, others = slide.suffix.lower(), []
    if ending in _FOLDERS and slide.with_suffix("").is_dir():
        others = _inside(slide.with_suffix(""))
    elif ending in _LISTS:
        with open(slide, encoding="latin-1") as file:
            named = [line.partition("=")[2].strip() for line in file.read(MOST_LIST_BYTES).splitlines()]
        others = sorted({slide.with_name(Path(name).name) for name in named if 0 < len(Path(name).name) < 250})
        others = [path for path in others if path.is_file() and path != slide]
    return [slide, *others]


def _inside(folder: Path) -> list[Path]:
    """The files in a folder but those that systems put there."""
    found = []
    for inner, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(inner, name) for name in names if name[0] != "." and name.lower() not in _NO_PARTS]
    return sorted(path for path in found if path.is_file())


def identity_of(slide: Path) -> dict[str, Any]:
    """What tells a slide from another of the same name, as plain values.

    Returns:
        ``files`` and ``bytes`` of them; ``places_sha256`` of their names, sizes, heads, tails and a few places between,
        about 1 MB in all; and when the last of them changed, in ns: ``modified_ns`` its bytes, ``changed_ns`` its entry
        in the file system.

    Raises:
        OSError: where a file cannot be read.
    """
    try:
        files = files_of(slide)
    except InputError:
        # whose files nobody knows, though it may be read
        files = _inside(slide) if slide.is_dir() else [slide]
    facts = _facts(files)
    digest = hashlib.sha256()
    width = max(LEAST_BYTES, MOST_BYTES // len(files) // PLACES) if files else 0
    for path in files:
        name, size = "" if path == slide else path.relative_to(slide.parent).as_posix(), path.stat().st_size
        digest.update(json.dumps([name, size]).encode())
        with open(path, "rb") as file:
            # a small file is read whole, since its places touch
            places = PLACES if size > width else 1
            for number in range(places):
                file.seek(number * (size - width) // (places - 1) if places > 1 else 0)
                digest.update(file.read(width))
    return facts | {"places_sha256": digest.hexdigest()}


def _facts(files: Sequence[Path]) -> dict[str, Any]:
    """An identity as far as it can be told without reading the files."""
    states = [path.stat() for path in files]
    return {
        "files": len(files),
        "bytes": sum(state.st_size for state in states),
        "places_sha256": None,
        "modified_ns": max((state.st_mtime_ns for state in states), default=0),
        "changed_ns": max((state.st_ctime_ns for state in states), default=0),
    }


def content_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an identity that stays when a slide is copied, or its times are set."""
    return {name: identity.get(name) for name in ("files", "bytes", "places_sha256")}


def has_changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a slide was written to between two looks at it, also where none of the places shows it."""
    return before["modified_ns"] != after["modified_ns"] or content_of(before) != content_of(after)


def is_same(slide: Path, identity: Mapping[str, Any]) -> bool:
    """Whether a slide is the one of an identity; its bytes are looked at only where its times are others.

    Raises:
        InputError: where nobody knows which files are its own.
        OSError: where a file cannot be read.
    """
    now = _facts(files_of(slide))
    changed = [name for name, value in now.items() if value not in (None, identity.get(name))]
    if "files" in changed or "bytes" in changed:
        return False
    return not changed or content_of(identity_of(slide)) == content_of(identity)
