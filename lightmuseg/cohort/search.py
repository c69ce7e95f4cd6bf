"""Slides in a folder, at any depth."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from lightmuseg.data.tiff import SLIDE_SUFFIXES
from lightmuseg.errors import InputError, first_line

# TIFF and what else OpenSlide reads
SUFFIXES = (*SLIDE_SUFFIXES, ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi")
DICOM = ".dcm"
# Beside slides they are thumbnails and masks, so only who asks for them gets them.
PICTURES = (".png", ".jpg", ".jpeg")
# what a folder of results holds
_RESULTS = {"run.json", "measurements.csv"}


def search(
    root: Path, skipped: Path, pictures: bool = False, unseen: Callable[[Path, str], None] = lambda *_: None
) -> Iterator[Path]:
    """The slides below ``root``: files, and folders of a DICOM series.

    Hidden files and folders of results are passed over. Links to folders are followed when all real ones have been
    looked into, and each folder is looked into once, so a link to a folder above ends nothing and repeats nothing.

    Args:
        root: where to begin.
        skipped: a folder that is not looked into, where it is another one.
        pictures: PNG and JPEG too.
        unseen: takes each folder that cannot be looked into, with a line that says why; the others go on.
    """
    suffixes = (*SUFFIXES, *PICTURES) if pictures else SUFFIXES
    folders, links = [root], []
    seen = {_mark(skipped)} - {_mark(root)} if skipped.is_dir() else set()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        try:
            mark = _mark(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name) if mark not in seen else []
        except OSError as error:
            unseen(folder, f"{folder}: cannot be looked into ({error.strerror}); allow it, or move it away.")
            continue
        seen.add(mark)
        if {entry.name for entry in entries} >= _RESULTS:
            continue
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        inner = [entry for entry in entries if _is(entry.is_dir)]
        folders += [Path(entry) for entry in reversed(inner) if not entry.is_symlink()]
        links += [Path(entry) for entry in inner if entry.is_symlink()]
        # a link to nothing is a slide that fails with a reason; what is neither file nor link might never end
        files = [Path(one) for one in entries if one not in inner and (_is(one.is_file) or one.is_symlink())]
        yield from (path for path in files if path.suffix.lower() in suffixes)
        yield from _dicom(folder, [path for path in files if path.suffix.lower() == DICOM])


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        # of a link to itself, or one that this user may not follow
        return False


def _mark(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _dicom(folder: Path, files: list[Path]) -> list[Path]:
    """A folder of one series, or files that are a series each."""
    if len(files) < 2:
        return files
    series = Counter(_series(path) for path in files)
    if len(series) == 1:
        return [folder]
    if len(series) == len(files):
        return files
    raise InputError(
        f"{folder}: holds {len(series)} DICOM series in {len(files)} files; give each a folder of its own."
    )


def _series(path: Path) -> str:
    """The UID of a file's series; its name where it cannot be read, so that it is a slide that fails with a reason."""
    try:
        import pydicom
    except ImportError:
        return ""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.SeriesInstanceUID)
    except Exception as error:  # pydicom raises errors of many kinds of files that are damaged
        return f"{path.name}: {first_line(error)}"
