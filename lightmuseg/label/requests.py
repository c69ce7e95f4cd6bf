"""What a request asks for, checked before anything is done with it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile

from . import METHODS

# Of images and labels; what else a client sends is a few lines of JSON.
MAX_IMAGE_BYTES, MAX_LABEL_BYTES, MAX_BODY_BYTES = 4_000_000_000, 50_000_000, 1_000_000
# of a form around its file
FORM_BYTES = 100_000
# of a value in an address, or of a file's name
MAX_VALUE = 1000
# parts of a form that hold JSON
JSON_FIELDS = ("params", "info", "wsi")
# What the server says itself of an inference; a client's params may not.
RESERVED = ("model", "image", "output", "label", "session", "session_id", "save_label")
MAX_DEPTH = 20
# what the server itself says of an image, and of a label
IMAGE_KEYS = (*METHODS, "taken", "strategy", "ts", "name", "path")
LABEL_KEYS = ("bbox", "version", "sha256", "ts", "name")
# of a form: one file, and a few lines of JSON
FORM_LIMITS = {"max_files": 1, "max_fields": 10, "max_part_size": 100_000}
CHECK_SUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]+")
FILE_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")


async def checked(request: Request) -> None:
    """Refuse what no route takes: sessions, waiting for a training, names that are none, JSON that is no object.

    Raises:
        HTTPException: 400, with one line.
    """
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if len(str(value)) > MAX_VALUE or "\0" in str(value):
            raise HTTPException(400, f"{name} {shown(value)}: is too long, or holds a zero byte.")
    if request.query_params.get("session_id"):
        raise HTTPException(400, "session_id: sessions are closed; name an image, or send one by POST /infer/wsi_v2.")
    if request.query_params.get("run_sync", "").lower() in ("1", "on", "t", "true", "y", "yes"):
        raise HTTPException(
            400, "run_sync: nobody can wait so long; start it without, and ask GET /train/ or /scoring/."
        )
    if not CHECK_SUM.fullmatch(request.query_params.get("check_sum", "0")):
        raise HTTPException(400, "check_sum: is none; give SHA256:, SHA512: or MD5: and its hexadecimal digits.")
    if request.headers.get("content-type", "").lower().startswith(("multipart/", "application/x-www-form-urlencoded")):
        for name, value in (await request.form(**FORM_LIMITS)).multi_items():
            if isinstance(value, UploadFile):
                if not FILE_NAME.fullmatch(value.filename or "") or len(value.filename.encode()) > 200:
                    raise HTTPException(400, f"{name} {shown(value.filename)}: is no name of a file.")
            elif name in JSON_FIELDS:
                json_object(value, name)


def shown(value: Any) -> str:
    """A client's value as it can stand in a line: short, and nothing in it that is no text."""
    return f"'{value[:80]}'" if isinstance(value, str) and value.isprintable() else ascii(value)[:80]


def json_object(text: str, name: str) -> dict[str, Any]:
    """The object that a form's part holds.

    Raises:
        HTTPException: 400, where it is no JSON or no object, or holds what :func:`plain_object` refuses.
    """
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"{name}: is no JSON; give an object such as {{}}.") from error
    return plain_object(content, name)


def plain_object(content: Any, name: str) -> dict[str, Any]:
    """An object of JSON that every reader of JSON takes again: not deep, its numbers finite, its text Unicode.

    Raises:
        HTTPException: 400, where it is no object, or something else.
    """
    if not isinstance(content, dict):
        raise HTTPException(400, f"{name} {shown(content)}: is no object; give one such as {{}}.")
    waiting: list[tuple[int, Any]] = [(1, content)]
    while waiting:
        depth, value = waiting.pop()
        if depth > MAX_DEPTH:
            raise HTTPException(400, f"{name}: is nested more than {MAX_DEPTH} deep.")
        if isinstance(value, (dict, list)):
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            waiting += [(depth + 1, part) for part in parts]
        elif isinstance(value, float) and not math.isfinite(value):
            raise HTTPException(400, f"{name}: holds a number that is not finite.")
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise HTTPException(400, f"{name}: holds text that is no Unicode.")
    return content


def client_info(content: Any, name: str, own: Collection[str]) -> dict[str, Any]:
    """What a client says of an image or a label, without what the server says of it.

    Args:
        content: an object of JSON.
        name: of it, for messages.
        own: the server's own keys.

    Raises:
        HTTPException: 400, where it is none, or has one of the server's keys.
    """
    for key in plain_object(content, name):
        if key in own:
            raise HTTPException(400, f"{name}, {shown(key)}: only the server says that; use another name.")
    return content


def known(things: Mapping[str, Any], name: str, what: str) -> Any:
    """The thing of a name.

    Raises:
        HTTPException: 404, where there is none.
    """
    if name not in things:
        raise HTTPException(404, f"{what} {shown(name)}: is not known; {', '.join(things) or 'there is none'}.")
    return things[name]


def inference_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a client says of an inference beside the image.

    Raises:
        HTTPException: 400, where it names what only the server does, or wants the answer saved.
    """
    for name in RESERVED:
        if params.get(name):
            remedy = "save it by PUT /datastore/label" if name == "save_label" else "say it in the address"
            raise HTTPException(400, f"params, {name}: is not taken from there; {remedy}.")
    return {name: value for name, value in params.items() if name not in RESERVED}


def options_of(params: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training or scoring, each of which its config names, in a value of the same kind.

    Raises:
        HTTPException: 400, for another option, or a value of another kind or size.
    """
    options = params or {}
    if not isinstance(options, dict):
        raise HTTPException(400, f"{shown(options)}: is no object; give one such as {{}}.")
    for name, value in options.items():
        if name not in config:
            known = ", ".join(config) or "none"
            raise HTTPException(400, f"{shown(name)}: is no option; known are {known}.")
        if not _is_like(value, config[name]):
            raise HTTPException(400, f"{name} {shown(value)}: give a value such as {str(config[name])[:80]}.")
    return options


def _is_like(value: Any, given: Any) -> bool:
    """Whether a value is of the kind of the given one; of a list one of its members, as QuPath's menus give."""
    if isinstance(given, (list, tuple)):
        return value in given or value == list(given)
    if isinstance(given, bool) or isinstance(value, bool):
        return type(value) is type(given)
    if isinstance(given, (int, float)):
        whole = isinstance(value, int) or (isinstance(given, float) and isinstance(value, float))
        # nor is anything below that is not finite
        return whole and abs(value) < 1e9
    return isinstance(value, type(given)) and len(str(value)) <= MAX_VALUE
