"""What images and tags may be called, so that a name leads to one file of one folder."""

from __future__ import annotations

import re

NAME = re.compile(r"[^/\\\x00-\x1f]{1,200}")
TAG = re.compile(r"[A-Za-z0-9_-]{1,40}")
ENDING = re.compile(r"(\.[A-Za-z0-9]{1,10}){1,2}")


def is_name(text: str) -> bool:
    """Whether a text can be the name of an image: of one file in one folder, and not hidden."""
    try:
        return bool(NAME.fullmatch(text)) and len(text.encode()) <= 200 and not text.startswith(".")
    except UnicodeEncodeError:
        return False
