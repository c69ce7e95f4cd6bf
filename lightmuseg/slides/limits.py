"""How long the names of a slide's results may be."""

from __future__ import annotations

import os
from pathlib import Path

from lightmuseg.errors import InputError

# What is put around the name of a folder of results while it is made or kept: ".NAME.partial", ".NAME.kept-1".
AROUND = len("..partial")
# What lies in it at most, with the zarr's chunks and names of files that are not whole yet.
INSIDE = 160
NAME_BYTES, PATH_BYTES = 255, 4096


def require_names_that_fit(folder: Path) -> None:
    """Refuse a slide whose folder of results, or the hidden one beside it, could not have its name.

    Args:
        folder: of the results.

    Raises:
        InputError: that names the slide's name and the bytes that are left for it.
    """
    name, path = len(os.fsencode(folder.name)), len(os.fsencode(folder.absolute()))
    most = _limit(folder, "PC_NAME_MAX", NAME_BYTES) - AROUND
    if name > most:
        raise InputError(
            f"{folder}: the name of a folder of results has {name} bytes, and at most {most} fit here; give the slide "
            "a shorter name."
        )
    room = _limit(folder, "PC_PATH_MAX", PATH_BYTES) - AROUND - INSIDE
    if path > room:
        raise InputError(
            f"{folder}: the path of a folder of results has {path} bytes, and at most {room} fit here; choose another "
            "--output."
        )


def _limit(folder: Path, kind: str, usual: int) -> int:
    """What the file system says of the next folder above that is there; ``usual`` where it says nothing."""
    # pathlib would raise of a path that is too long
    above = next((path for path in folder.absolute().parents if os.path.isdir(path)), None)  # noqa: PTH112
    try:
        return os.pathconf(above, kind) if above is not None else usual
    except (AttributeError, OSError, ValueError):
        # AttributeError: Windows has no such call
        return usual
