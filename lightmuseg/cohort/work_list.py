"""The slides of a cohort, each once, in the order in which they are worked at."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightmuseg.errors import InputError
from lightmuseg.slides.job import result_name
from lightmuseg.slides.readers.dicom_series import one_of_each

from .manifest import read_manifest
from .search import search

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
    """

    path: Path
    name: str
    mpp: float | None = None
    patient: str = ""
    stain: str = ""
    size: int = 0


def work_list(sources: Sequence[str], output: Path) -> list[CohortSlide]:
    """The slides that are named, the largest first: begun last, a large one would keep all other workers waiting.

    Args:
        sources: folders, globs, CSV manifests, or slides.
        output: the cohort's folder, which is not searched.

    Raises:
        InputError: where nothing is found, a manifest is wrong, or two slides would share a folder of results.
    """
    found: dict[Path, CohortSlide] = {}
    sources = one_of_each(sources)
    # what a manifest says of a slide holds wherever the slide is found again
    for source in sorted(sources, key=lambda source: not _is_manifest(source)):
        for slide in _slides(source, output):
            found.setdefault(slide.path, slide)
    if not found:
        raise InputError(
            f"{', '.join(sources) or 'SLIDES'}: no slide is there; name a folder, a glob or a CSV manifest."
        )
    slides = sorted(found.values(), key=lambda slide: (-slide.size, slide.name))
    _refuse_shared_folders(slides)
    return slides


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
    return Path(source).suffix.lower() == ".csv" and Path(source).is_file()


def _slides(source: str, output: Path) -> Iterator[CohortSlide]:
    path = Path(source)
    if path.is_dir():
        path = path.resolve()
        for slide in search(path, output):
            yield _slide(slide, path)
    elif _is_manifest(source):
        for row in read_manifest(path):
            mpp = float(row["mpp"]) if row["mpp"] else None
            yield _slide(path.parent / row["path"], path.parent, mpp, row["patient"], row["stain"])
    elif path.is_file():
        yield _slide(path, path.parent)
    elif glob.has_magic(source):
        parts = path.parts
        fixed = next(index for index, part in enumerate(parts) if glob.has_magic(part))
        root, pattern = Path(*parts[:fixed]), parts[fixed:]
        if not root.is_dir():
            raise InputError(f"{source}: {root} is no folder; name one that is there.")
        # glob's own ** would follow a link to a folder above again and again
        for slide in search(root, output, pictures=True):
            # a folder stands for the files of a slide in DICOM
            if any(_matches(path.relative_to(root).parts, pattern) for path in (slide, *_inside(slide))):
                yield _slide(slide, root)
    else:
        raise InputError(f"{source}: no such folder, glob, manifest or slide; name one that is there.")


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
    # the root itself may be the folder of a slide in DICOM
    root = root.parent if path == root else root
    inner = PurePosixPath(path.relative_to(root).as_posix())
    # links below the root stay: a slide is called what its folder calls it
    path = root.resolve() / inner
    name = str(inner if path.is_dir() else inner.with_name(result_name(path)))
    if any(part.startswith(".") for part in PurePosixPath(name).parts) or PurePosixPath(name).parts[0] in (TABLE, PAGE):
        raise InputError(f"{path}: its folder of results could not be called {name}; rename it.")
    return CohortSlide(path, name, mpp, patient, stain, _size(path))


def _size(path: Path) -> int:
    files = [path]
    # MIRAX keeps the pixels in a folder beside the file
    folder = path if path.is_dir() else path.with_suffix("") if path.suffix.lower() == ".mrxs" else None
    if folder is not None and folder.is_dir():
        files += folder.iterdir()
    return sum(file.stat().st_size for file in files if file.is_file())


def _refuse_shared_folders(slides: Sequence[CohortSlide]) -> None:
    by_name: dict[str, CohortSlide] = {}
    for slide in slides:
        other = by_name.setdefault(slide.name, slide)
        if other is not slide:
            raise InputError(
                f"{slide.path}: would have the same folder of results, {slide.name}, as {other.path}; rename one, or "
                "give the folder above both, or a glob in quotes, which keeps their folders apart."
            )
    for slide in slides:
        for folder in PurePosixPath(slide.name).parents:
            if str(folder) in by_name:
                other = by_name[str(folder)]
                raise InputError(
                    f"{slide.path}: would have its results inside those of {other.path}; rename one of them."
                )
