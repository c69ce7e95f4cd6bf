"""The values in an address; those that cannot be are refused."""

from __future__ import annotations

import math
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request

from lightmuseg.classes import UNREAD
from lightmuseg.errors import InputError

from .result_list import MAX_SIDE
from .zoom_tiles import Tile, TileLevels


def tile_of(request: Request, levels: TileLevels) -> Tile:
    """The tile that a request names; an InputError where there is none."""
    return levels.tile(*(_whole(request.path_params[name]) for name in ("level", "column", "row")))


def classes_of(text: str, classes: int) -> frozenset[int]:
    """The class indices that a part of an address names, such as 1-2-255; an InputError where there is none such."""
    indices = frozenset(_whole(part) for part in text.split("-", classes + 1))
    if not indices <= {*range(1, classes + 1), UNREAD}:
        raise InputError("there is no such class")
    return indices


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,7}", text):
        raise InputError("there is no such tile")
    return int(text)


def number_of(request: Request, name: str) -> float:
    """A number of level-0 pixels that a request names; an HTTPException where it is missing or cannot be one."""
    try:
        value = float(request.query_params.get(name, ""))
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_SIDE:
        raise HTTPException(400, f"{name}: give a number of level-0 pixels")
    return value
