"""What the values in an address ask for; those that cannot be are refused."""

from __future__ import annotations

import math

from starlette.exceptions import HTTPException
from starlette.requests import Request

from lightmuseg.classes import UNREAD

from .result_list import MAX_SIDE
from .zoom_tiles import TileLevels


def tile_asked(request: Request, levels: TileLevels) -> tuple[int, tuple[int, int, int, int]]:
    """The level and the box (left, upper, right, lower) of the tile that a request names.

    Raises:
        HTTPException: where there is no such tile.
    """
    level, column, row = (_whole(request.path_params[name]) for name in ("level", "column", "row"))
    box = levels.box(level, column, row)
    if box is None:
        raise HTTPException(404, "there is no such tile")
    return level, box


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 7):
        raise HTTPException(404, "there is no such tile")
    return int(text)


def classes_asked(text: str, classes: int) -> frozenset[int]:
    """The class indices that a part of an address names, such as 1-2-255.

    Raises:
        HTTPException: where one is not of ``classes`` classes.
    """
    indices = [_whole(part) for part in text.split("-", classes + 1)]
    if not all(1 <= index <= classes or index == UNREAD for index in indices):
        raise HTTPException(404, "there is no such class")
    return frozenset(indices)


def number_asked(request: Request, name: str) -> float:
    """A number of level-0 pixels that a request names.

    Raises:
        HTTPException: where it is missing or cannot be one.
    """
    text = request.query_params.get(name, "")
    try:
        value = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_SIDE:
        raise HTTPException(400, f"{name}: give a number of level-0 pixels")
    return value
