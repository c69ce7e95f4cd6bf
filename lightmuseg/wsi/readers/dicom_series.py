"""Which DICOM files are one slide: pictures of a whole slide in one folder, of one series.

Beside them lie labels, overviews, segmentations, annotations and DICOMDIR, which are no slides.
"""

from __future__ import annotations

import filecmp
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeVar

from lightmuseg.errors import InputError, first_line

SUFFIX = ".dcm"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
# what lies behind these groups may be long: a place for each frame, and the pixels
PER_FRAME = 0x52009230
# files whose headers are remembered
KNOWN = 100_000
_Named = TypeVar("_Named", str, Path)
_NO_SLIDE = "holds no picture of a whole slide in DICOM; name the slide's file, or the folder of its series."


class LevelFile(NamedTuple):
    """A file with a picture of a whole slide, a level of its pyramid."""

    path: Path
    # what files of one slide have in common: UIDs of the series and of its frame of reference
    slide: tuple[str, str]
    # UID of the picture, which only copies of the file share
    instance: str
    # UID of what the file is a part of, where a picture is cut into several; else the picture's
    whole: str
    # of the picture, in pixels
    columns: int


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its name or its first bytes."""
    if path.suffix.lower() == SUFFIX:
        return True
    # of a name that cannot be is_file says so by an error
    with suppress(OSError, ValueError):
        if path.is_file():
            with open(path, "rb") as file:
                return file.read(132)[128:] == b"DICM"
    return False


def level_file_of(path: Path) -> LevelFile | None:
    """The picture of a whole slide in a file; None where it is DICOM of something else, InputError where it is none."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); copy it again.") from error
    return _level_file_of(path, state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(KNOWN)
def _level_file_of(path: Path, *_: int) -> LevelFile | None:
    """Headers are read once for each state of a file: each slide of a folder asks for all of them."""
    try:
        from pydicom.filereader import read_partial
    except ImportError as error:
        raise InputError(f"{path}: DICOM needs pydicom; pip install 'lightmuseg[slides]'.") from error
    try:
        with open(path, "rb") as file:
            header = read_partial(file, lambda tag, *_: tag >= PER_FRAME)
        kind = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID")
        if kind != WHOLE_SLIDE or "VOLUME" not in (header.get("ImageType") or ["VOLUME"]):
            return None
        slide = str(header.get("SeriesInstanceUID")), str(header.get("FrameOfReferenceUID"))
        instance = str(header.get("SOPInstanceUID"))
        whole = str(header.get("ConcatenationUID") or instance)
        # it is an error where the file ends before the columns
        return LevelFile(path, slide, instance, whole, int(header.TotalPixelMatrixColumns))
    # pydicom raises errors of many kinds of files that are damaged
    except Exception as error:
        raise InputError(f"{path}: not DICOM that can be read ({first_line(error)}); copy it again.") from error


def slides_among(files: Iterable[Path]) -> tuple[list[list[Path]], dict[Path, InputError]]:
    """The slides in DICOM files, each as its files from the finest level; and why others cannot be read.

    Copies of a file are the same picture; where all files of a slide have a changed copy, these are a slide too.
    """
    slides: dict[tuple[str, str], list[dict[str, LevelFile]]] = {}
    pictures, unreadable = _pictures(files)
    for picture in pictures:
        copies = slides.setdefault(picture.slide, [])
        others = (copy.get(picture.instance) for copy in copies)
        if not any(other and filecmp.cmp(other.path, picture.path, shallow=False) for other in others):
            if all(picture.instance in copy for copy in copies):
                copies.append({})
            next(copy for copy in copies if picture.instance not in copy)[picture.instance] = picture
    whole = [copy for copies in slides.values() for copy in copies if len(copy) == len(copies[0])]
    return [_finest_first(copy.values()) for copy in whole], unreadable


def _pictures(files: Iterable[Path]) -> tuple[list[LevelFile], dict[Path, InputError]]:
    pictures, unreadable = [], {}
    for path in files:
        try:
            pictures.append(level_file_of(path))
        except InputError as error:
            unreadable[path] = error
    return list(filter(None, pictures)), unreadable


def series_files(path: Path) -> list[Path]:
    """The files of the slide that a path means, from the finest level.

    Args:
        path: any of its files, which stands for all of its series in that folder; or a folder that holds one slide.

    Raises:
        InputError: where there is none, or more than one could be meant, or a file of the folder cannot be read.
    """
    if path.is_dir():
        slides, unreadable = slides_among(_dicom_files(path))
        if unreadable:
            raise next(iter(unreadable.values()))
        if len(slides) > 1:
            raise InputError(
                f"{path}: holds {len(slides)} slides, such as {slides[0][0].name} and {slides[1][0].name}; name a file "
                "of the one that is meant."
            )
        if not slides:
            raise InputError(f"{path}: {_NO_SLIDE}")
        return slides[0]
    own = level_file_of(path)
    if own is None:
        raise InputError(f"{path}: {_NO_SLIDE}")
    pictures = {own.instance: own}
    # a neighbour's damage is its own matter
    for other in _pictures(_dicom_files(path.parent))[0]:
        # what is as large is another focal plane, or another version of it
        if other.slide == own.slide and (other.columns != own.columns or other.whole == own.whole):
            pictures.setdefault(other.instance, other)
    return _finest_first(pictures.values())


def one_of_each(paths: Iterable[_Named]) -> list[_Named]:
    """Paths without those that are another file of a slide named before, as ``SERIES/*.dcm`` gives them."""
    first: dict[Path, _Named] = {}
    finest: dict[Path, dict[Path, Path]] = {}
    for named in paths:
        key = Path(named)
        # what cannot be read is refused by who opens it
        with suppress(OSError, ValueError):
            if not key.is_dir() and is_dicom(key):
                if key.parent not in finest:
                    slides, _ = slides_among(_dicom_files(key.parent))
                    finest[key.parent] = {path: slide[0] for slide in slides for path in slide}
                key = finest[key.parent].get(key, key)
        first.setdefault(key, named)
    return list(first.values())


def _dicom_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_file())
    return [path for path in files if is_dicom(path)]


def _finest_first(pictures: Iterable[LevelFile]) -> list[Path]:
    return [picture.path for picture in sorted(pictures, key=lambda one: (-one.columns, one.path.name))]
