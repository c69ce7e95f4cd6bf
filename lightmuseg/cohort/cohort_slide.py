"""A slide of a cohort, and what its folder of results is called."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightmuseg.errors import first_line
from lightmuseg.slides.job import result_name

# the table and the page of a cohort, beside the folders of results
TABLE, PAGE = "cohort.csv", "cohort.html"


@dataclass(frozen=True)
class CohortSlide:
    """A slide among many.

    Attributes:
        path: of its file, or of the folder of a DICOM series.
        name: of its folder of results, below the cohort's, with / between folders.
        mpp: um/px of level 0; None for what its file says.
        patient, stain: as the table of slides says.
        size: bytes.
        fault: why it is not tried, in one line: what cannot be looked at, a wrong line of a table, a folder of results
            that would be another slide's too. Such a slide has failed, and the others go on.
    """

    path: Path
    name: str
    mpp: float | None = None
    patient: str = ""
    stain: str = ""
    size: int = 0
    fault: str = ""


def slide_at(path: Path, root: Path, mpp: float | None = None, patient: str = "", stain: str = "") -> CohortSlide:
    """A slide whose results are called as it is below ``root``, or behind the folder that both have in common."""
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
    """The absolute path of a slide, the same however it is given, and its part behind what it shares with ``root``."""
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
