"""The slides of a cohort, each once, in the order in which they are segmented."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lightmuseg.errors import InputError
from lightmuseg.files import is_file, is_folder
from lightmuseg.wsi.readers.dicom_series import one_of_each
from lightmuseg.wsi.slide_search import find_slides

from .cohort_slide import CohortSlide, slide_at
from .slide_table import SUFFIXES, read_slide_table


def work_list(sources: Sequence[str], output: Path) -> list[CohortSlide]:
    """The slides that are named, the largest first: started last, a large one would keep all other workers waiting.

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
    faulty: list[CohortSlide] = []

    def note(folder: Path, fault: str) -> None:
        faulty.append(CohortSlide(folder.absolute(), folder.name or str(folder), fault=fault))

    def below(root: Path, pattern: Sequence[str] | None = None) -> Iterator[CohortSlide]:
        for slide in find_slides(root, output, pictures=pattern is not None, unseen=note):
            # a folder stands for the files of a slide in DICOM, and may be the root itself
            files = [slide, *(slide.iterdir() if slide.is_dir() else ())]
            if pattern is None or any(_matches(file.relative_to(root).parts, pattern) for file in files):
                yield slide_at(slide, root.parent if slide == root else root)

    if is_folder(path):
        yield from below(path.resolve())
    elif _is_manifest(source):
        yield from read_slide_table(path)
    elif is_file(path):
        yield slide_at(path, path.parent)
    elif glob.has_magic(source):
        fixed = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
        root = Path(*path.parts[:fixed])
        if not is_folder(root):
            raise InputError(f"{source}: {root} is no folder; name one that is there.")
        # glob's own ** would follow a link to a folder above again and again
        yield from below(root, path.parts[fixed:])
    else:
        fault = f"{source}: no such folder, glob, manifest or slide, or none that may be read; name one that is there."
        if alone:
            raise InputError(fault)
        note(path, fault)
    yield from faulty


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path is one that a glob means, ** being any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[index:], pattern[1:]) for index in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


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
