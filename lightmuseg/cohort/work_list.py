"""The slides of a cohort, each once, in the order in which they are worked at."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from lightmuseg.errors import InputError, first_line
from lightmuseg.files import is_file, is_folder
from lightmuseg.slides.job import result_name
from lightmuseg.wsi.readers.dicom_series import one_of_each
from lightmuseg.wsi.slide_search import find_slides

from .slide_list import SUFFIXES, read_manifest

TABLE, PAGE = "cohort.csv", "cohort.html"


@dataclass(frozen=True)
class CohortSlide:
    """A slide among many.

    Attributes:
        path: of its file, or of the folder of a DICOM series.
        name: of its folder of results, below the cohort's, with / between folders.
        mpp: um/px of level 0; None for what its file says.
        patient, stain: as the manifest says.
        size: bytes.
        fault: why it is not tried, in one line: what cannot be looked at, a wrong line of a manifest, a folder of
            results that would be another slide's too. Such a slide has failed, and the others go on.
    """

    path: Path
    name: str
    mpp: float | None = None
    patient: str = ""
    stain: str = ""
    size: int = 0
    fault: str = ""


def work_list(sources: Sequence[str], output: Path) -> list[CohortSlide]:
    """The slides that are named, the largest first: begun last, a large one would keep all other workers waiting.

    Args:
        sources: folders, globs, tables of slides, or slides.
        output: the cohort's folder, which is not searched.

    Raises:
        InputError: where nothing is found, the only source is not there, or a manifest is no table.
    """
    found: dict[Path, CohortSlide] = {}
    sources = one_of_each(sources)
    # what a manifest says of a slide holds wherever the slide is found again
    for source in sorted(sources, key=lambda source: not _is_manifest(source)):
        for slide in _slides(source, output, len(sources) == 1):
            found.setdefault(slide.path, slide)
    if not found:
        raise InputError(
            f"{', '.join(sources) or 'SLIDES'}: no slide is there; name a folder, a glob or a table of slides."
        )
    return _apart(sorted(found.values(), key=lambda slide: (-slide.size, slide.name)))


def shard_of(slides: Sequence[CohortSlide], shard: str) -> list[CohortSlide]:
    """The part "i/n" of a list: every n-th slide from the i-th, counted from 1, so that all parts have large ones.

    Raises:
        InputError: for another text, or an i that is not 1 to n.

    >>> shard_of("abcde", "2/3")
    ['b', 'e']
    """
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--shard {shard}: give i/n with i from 1 to n, such as 1/4 to 4/4.")
    return list(slides[int(part) - 1 :: int(parts)])


def _is_manifest(source: str) -> bool:
    return Path(source).suffix.lower() in SUFFIXES and is_file(source)


def _slides(source: str, output: Path, alone: bool) -> Iterator[CohortSlide]:
    """The slides of a source; of one that is not there it is a slide that failed, where it is not ``alone``."""
    path = Path(source)
    unseen: list[CohortSlide] = []

    def note(folder: Path, fault: str) -> None:
        unseen.append(CohortSlide(folder.absolute(), folder.name or str(folder), fault=fault))

    if is_folder(path):
        path = path.resolve()
        for slide in find_slides(path, output, unseen=note):
            yield _found(slide, path)
    elif _is_manifest(source):
        for row in read_manifest(path):
            if row.path is None:
                yield CohortSlide(Path(row.place).absolute(), Path(row.place).name, fault=row.fault)
            else:
                slide = _slide(row.path, path.parent, row.mpp, row.patient, row.stain)
                yield replace(slide, fault=row.fault or slide.fault)
    elif is_file(path):
        yield _slide(path, path.parent)
    elif glob.has_magic(source):
        parts = path.parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        root, pattern = Path(*parts[:fixed]), parts[fixed:]
        if not is_folder(root):
            raise InputError(f"{source}: {root} is no folder; name one that is there.")
        # glob's own ** would follow a link to a folder above again and again
        for slide in find_slides(root, output, pictures=True, unseen=note):
            # a folder stands for the files of a slide in DICOM
            if any(_matches(path.relative_to(root).parts, pattern) for path in (slide, *_inside(slide))):
                yield _found(slide, root)
    else:
        fault = f"{source}: no such folder, glob, manifest or slide, or none that may be read; name one that is there."
        if alone:
            raise InputError(fault)
        note(path, fault)
    yield from unseen


def _found(path: Path, root: Path) -> CohortSlide:
    """A slide that a search of ``root`` found, which may be that folder itself where it is a slide in DICOM."""
    return _slide(path, root.parent if path == root else root)


def _inside(path: Path) -> Iterable[Path]:
    return path.iterdir() if path.is_dir() else ()


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is one that a glob means, ** being any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[index:], pattern[1:]) for index in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _slide(path: Path, root: Path, mpp: float | None = None, patient: str = "", stain: str = "") -> CohortSlide:
    """A slide whose results are called as it is below ``root``, or behind what it has in common with it."""
    try:
        path, inner = _placed(path, root)
        name = str(inner if path.is_dir() else inner.with_name(result_name(path))) if inner.name else ""
        size, fault = _size(path), ""
    except (OSError, RuntimeError, ValueError) as error:
        return CohortSlide(path.absolute(), path.name, mpp, patient, stain, 0, f"{path}: {first_line(error)}")
    parts = PurePosixPath(name).parts
    if not parts:
        fault = f"{path}: is the folder that the table is in, or one above; name a slide."
    elif any(part.startswith(".") for part in parts) or parts[0] in (TABLE, PAGE):
        fault = f"{path}: its folder of results could not be called {name}; rename it."
    return CohortSlide(path, name or path.name, mpp, patient, stain, size, fault)


def _placed(path: Path, root: Path) -> tuple[Path, PurePosixPath]:
    """The path of a slide as it is always written, and its part behind the folder that it shares with ``root``."""
    above = root.resolve()
    if path.is_relative_to(root) and ".." not in path.relative_to(root).parts:
        # links below the root stay: a slide is called what its folder calls it
        inner = path.relative_to(root)
        return above / inner, PurePosixPath(inner.as_posix())
    path = path.parent.resolve() / path.name if path.name != ".." else path.resolve()
    try:
        inner = Path(os.path.relpath(path, above))
    except ValueError:
        # of another drive of Windows
        inner = path.relative_to(path.anchor)
    return path, PurePosixPath(*(part for part in inner.parts if part not in ("..", ".")))


def _size(path: Path) -> int:
    files = [path]
    # MIRAX keeps the pixels in a folder beside the file
    folder = path if path.is_dir() else path.with_suffix("") if path.suffix.lower() == ".mrxs" else None
    if folder is not None and folder.is_dir():
        files += folder.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


def _apart(slides: Sequence[CohortSlide]) -> list[CohortSlide]:
    """Slides whose results would be in one folder have failed: nobody knows which of them the folder is of."""
    by_name: dict[str, list[CohortSlide]] = {}
    for slide in slides:
        if not slide.fault:
            by_name.setdefault(slide.name, []).append(slide)
    holding = {str(folder): name for name in by_name for folder in PurePosixPath(name).parents}

    def fault_of(slide: CohortSlide) -> str:
        same = by_name[slide.name]
        if len(same) > 1:
            other = next(one for one in same if one is not slide)
            return (
                f"{slide.path}: would have the same folder of results, {slide.name}, as {other.path}; rename one, or "
                "give the folder above both, or a glob in quotes, which keeps their folders apart."
            )
        if slide.name in holding:
            inner = by_name[holding[slide.name]][0]
            return f"{slide.path}: would have the results of {inner.path} inside its own; rename one of them."
        return ""

    return [slide if slide.fault else replace(slide, fault=fault_of(slide)) for slide in slides]
