"""Files that come with a request, for as long as it is answered."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastapi import UploadFile

# the last two, for .nii.gz
_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){0,2}$")


@contextmanager
def kept(file: UploadFile, folder: Path) -> Iterator[Path]:
    """A file as it was sent, in the server's own folder, under a name of ours with its ending; gone afterwards.

    Args:
        file: of a form.
        folder: the server's own.

    Raises:
        OSError: where it does not fit.
    """
    path = folder / f"{uuid.uuid4().hex}{_ENDING.search(file.filename or '')[0]}"
    try:
        with path.open("wb") as target:
            shutil.copyfileobj(file.file, target)
        yield path
    finally:
        path.unlink(missing_ok=True)
