"""Slides in a folder, at any depth."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .readers.dicom_series import is_dicom, slides_among
from .tiff import SLIDE_SUFFIXES

# TIFF and what else OpenSlide reads
SUFFIXES = (*SLIDE_SUFFIXES, ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi")
# Beside slides they are thumbnails and masks, so only who asks for them gets them.
PICTURES = (".png", ".jpg", ".jpeg")
# what a folder of results holds
_RESULTS = {"run.json", "measurements.csv"}


def find_slides(
    root: Path,
    skipped: Path | None = None,
    pictures: bool = False,
    unseen: Callable[[Path, str], None] = lambda *_: None,
) -> Iterator[Path]:
    """The slides below ``root``: files, the finest of each slide in DICOM, or its folder where that holds nothing else.

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
    seen = {_mark(skipped)} - {_mark(root)} if skipped is not None and skipped.is_dir() else set()
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
        slides = [path for path in files if path.suffix.lower() in suffixes]
        yield from slides
        others = [path for path in files if path.suffix.lower() not in (*SUFFIXES, *PICTURES)]
        yield from _dicom([path for path in others if is_dicom(path)], not slides and not inner)


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:
        # of a link to itself, or one that this user may not follow
        return False


def _mark(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _dicom(files: list[Path], alone: bool) -> list[Path]:
    """The slides among DICOM files of a folder: the folder where it holds no other, else the finest file of each.

    What cannot be read is a slide that fails with a reason; what is no picture of a whole slide is passed over.
    """
    slides, unreadable = slides_among(files)
    if alone and not unreadable and len(slides) == 1 and len(files) > 1:
        return [files[0].parent]
    return sorted([*(slide[0] for slide in slides), *unreadable])
