"""What a client is shown of its faults: nothing of the server's folders."""

from __future__ import annotations

import re
from pathlib import Path

from lightmuseg.errors import InputError, user_fault

# before a file's name
_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/'\",;]+/)+")


def without_folders(text: str, folder: str | Path = "") -> str:
    """A text that names files of the server without the folders they are in; ``folder`` may have spaces."""
    return _FOLDERS.sub("", text.replace(f"{folder}/", "") if folder else text)


def fault_line(error: InputError, folder: str | Path) -> str:
    """The line for a client, without the server's ``folder``."""
    return without_folders(str(user_fault(error)), folder)
