"""A client's faults as answers of HTTP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException

from lightmuseg.errors import InputError, user_fault

# before a file's name
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/'\",;]+/)+")


@contextmanager
def told(folder: str) -> Iterator[None]:
    """Answer 400 or 404 with one line, instead of 500, where the block fails by what the client gave.

    Args:
        folder: the server's own, which clients are not told.
    """
    try:
        yield
    except (ImageNotFoundException, LabelNotFoundException) as error:
        raise HTTPException(404, error.msg) from error
    except MONAILabelException as error:
        raise HTTPException(400, error.msg) from error
    except InputError as error:
        raise HTTPException(400, without_folders(str(user_fault(error)).replace(f"{folder}/", ""))) from error


def without_folders(text: str) -> str:
    """A text that names files of the server without the folders they are in."""
    return _FOLDERS.sub("", text)
