"""What requests may hold, checked before anything is done with it; a module requests here would hide the package."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field, StrictFloat, StrictInt, ValidationError
from starlette.datastructures import UploadFile

from lightmuseg.errors import InputError

from . import METHODS

# Of images and labels; what else a client sends is a few lines of JSON.
MAX_IMAGE_BYTES, MAX_LABEL_BYTES, MAX_BODY_BYTES = 4_000_000_000, 50_000_000, 1_000_000
# of a form around its file
FORM_BYTES = 100_000
# of a value in an address, or of a file's name
MAX_VALUE = 1000
# parts of a form that hold JSON
JSON_FIELDS = ("params", "info", "wsi")
# What the server decides of an inference; a client's params may not.
RESERVED = ("model", "image", "output", "label", "session", "session_id", "save_label")
MAX_DEPTH = 20
# what only the server itself writes of an image, and of a label
IMAGE_KEYS = (*METHODS, "taken", "strategy", "ts", "name", "path")
LABEL_KEYS = ("bbox", "version", "sha256", "ts", "name")
OWN_KEYS = {
    "/datastore/image": IMAGE_KEYS, "/datastore/image/info": IMAGE_KEYS, "/datastore/label/info": LABEL_KEYS,
}  # fmt: skip
# of a form: one file, and a few lines of JSON
FORM_LIMITS = {"max_files": 1, "max_fields": 10, "max_part_size": 100_000}
FORMS = ("multipart/", "application/x-www-form-urlencoded")
CHECK_SUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]+")
FILE_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")
# beyond any number that is meant
MAX_NUMBER = 10**9
Positive = Annotated[int, Field(strict=True, gt=0, lt=MAX_NUMBER)]
Number = TypeVar("Number")
Pair = tuple[Number, Number]


async def checked(request: Request) -> None:
    """Refuse by 400 what no route takes: sessions, waiting for a training, bad names, JSON that is no object."""
    query = request.query_params
    for name, value in (*request.path_params.items(), *query.multi_items()):
        if len(str(value)) > MAX_VALUE or "\0" in str(value):
            raise HTTPException(400, f"{name} {shown(value)}: is too long, or holds a zero byte.")
    if query.get("session_id"):
        raise HTTPException(400, "session_id: sessions are closed; name an image, or send one by POST /infer/wsi_v2.")
    if query.get("run_sync", "").lower() in ("1", "on", "t", "true", "y", "yes"):
        raise HTTPException(
            400, "run_sync: nobody can wait so long; start it without, and ask GET /train/ or /scoring/."
        )
    if not CHECK_SUM.fullmatch(query.get("check_sum", "0")):
        raise HTTPException(400, "check_sum: is none; give SHA256:, SHA512: or MD5: and its hexadecimal digits.")
    if request.headers.get("content-type", "").lower().startswith(FORMS):
        for name, value in (await request.form(**FORM_LIMITS)).multi_items():
            if isinstance(value, UploadFile):
                if not FILE_NAME.fullmatch(value.filename or "") or len(value.filename.encode()) > 200:
                    raise HTTPException(400, f"{name} {shown(value.filename)}: is no name of a file.")
            elif name in JSON_FIELDS:
                client_info(json_object(value, name), name, OWN_KEYS.get(request.url.path, ()))


def shown(value: Any) -> str:
    """A client's value as it can stand in a line: short, and nothing in it that is no text."""
    return f"'{value[:80]}'" if isinstance(value, str) and value.isprintable() else ascii(value)[:80]


def json_object(text: str, name: str) -> dict[str, Any]:
    """The object of JSON in a form's part, as :func:`plain_object` takes it; else 400."""
    try:
        content = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"{name}: is no JSON; give an object such as {{}}.") from error
    return plain_object(content, name)


def plain_object(content: Any, name: str) -> dict[str, Any]:
    """An object of JSON that every reader of JSON takes again: not deep, numbers finite, text Unicode; else 400."""
    if not isinstance(content, dict):
        raise HTTPException(400, f"{name} {shown(content)}: is no object; give one such as {{}}.")
    values: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        inner = (value.values() if isinstance(value, dict) else value for value in values)
        values = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
    if values:
        raise HTTPException(400, f"{name}: is nested more than {MAX_DEPTH} deep.")
    try:
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise HTTPException(400, f"{name}: holds a number that is not finite, or text that is no Unicode.") from error
    return content


def client_info(content: Any, name: str, own: Collection[str]) -> dict[str, Any]:
    """A plain object without any of the server's ``own`` keys, which a client states of an image or label; else 400."""
    for key in plain_object(content, name):
        if key in own:
            raise HTTPException(400, f"{name}, {shown(key)}: only the server writes that; use another name.")
    return content


def known(things: Mapping[str, Any], name: str, what: str) -> Any:
    """The thing of a name; 404 where there is none."""
    if name not in things:
        raise HTTPException(404, f"{what} {shown(name)}: is not known; {', '.join(things) or 'there is none'}.")
    return things[name]


def inference_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """A client's parameters of an inference; 400 where they set what only the server decides."""
    for name in RESERVED:
        if params.get(name):
            remedy = "save it by PUT /datastore/label" if name == "save_label" else "give it in the address"
            raise HTTPException(400, f"params, {name}: is not taken from there; {remedy}.")
    return {name: value for name, value in params.items() if name not in RESERVED}


def options_of(params: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a training or scoring; 400 for one that its config has not, or has of another kind or size."""
    options = params or {}
    if not isinstance(options, dict):
        raise HTTPException(400, f"{shown(options)}: is no object; give one such as {{}}.")
    for name, value in options.items():
        if name not in config:
            raise HTTPException(400, f"{shown(name)}: is no option; known are {', '.join(config) or 'none'}.")
        if not _is_like(value, config[name]):
            raise HTTPException(400, f"{name} {shown(value)}: give a value such as {str(config[name])[:80]}.")
    return options


def _is_like(value: Any, given: Any) -> bool:
    """Whether a value is of the kind of the given one; of a list one of its members, as QuPath's menus give."""
    if isinstance(given, (list, tuple)):
        return value in given or value == list(given)
    if type(value) is not type(given) and (type(value), type(given)) != (int, float):
        return False
    # nor is anything below that is not finite
    return abs(value) < MAX_NUMBER if isinstance(value, (int, float)) else len(str(value)) <= MAX_VALUE


class RequestModel(BaseModel):
    """Values by name; those that are None count as not given, those without a field are left out."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Take what a client sent.

        Raises:
            InputError: for the first value that is not of its field's kind or range.
        """
        given = {name: values[name] for name in cls.model_fields if values.get(name) is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            fault = error.errors()[0]
        name = str(fault["loc"][0])
        remedy = cls.model_fields[name].description
        raise InputError(f"{name} {ascii(given[name])[:80]}: {fault['msg']}; give {remedy}.")


class SegmentationRequest(RequestModel):
    """Which part of an image to segment, and what to answer; coordinates are level-0 pixels."""

    location: Pair[StrictInt] = Field((0, 0), description="[x, y] in level-0 pixels")
    size: Pair[StrictInt] = Field((0, 0), description="[width, height] in level-0 pixels, [0, 0] for everything")
    level: StrictInt = Field(0, description="a level of the image, the label image's resolution")
    # checked only: the engine's tiles overlap and are blended
    tile_size: Pair[Positive] = Field((1, 1), description="two whole numbers above 0")
    min_poly_area: StrictInt | StrictFloat = Field(0, ge=0, description="a number of level-0 pixels, 0 or more")
    output: Literal["asap", "dsa", "json", "image"] = Field("image", description="asap, dsa, json or image")


class PatchRequest(RequestModel):
    """Where to look for the next patch: in one image, or in all."""

    image: str = Field("", description="the name of an image")
    patch_size: Pair[Positive] | None = Field(None, description="[width, height] in level-0 pixels, above 0")
    client_id: str = Field("", max_length=200, description="a name of at most 200 characters")


class TrainingOptions(RequestModel):
    """Options of a fine-tuning; those that are keys of train.json have its names."""

    max_epochs: Positive = Field(20, description="a whole number above 0")
    learning_rate: float = Field(1e-4, strict=True, gt=0, lt=MAX_NUMBER, description="a number above 0")
    batch_size: Positive = Field(3, description="a whole number of tiles above 0")
    held_out: float = Field(0.2, strict=True, gt=0, lt=1, description="a share between 0 and 1")
    seed: int = Field(42, strict=True, ge=0, lt=MAX_NUMBER, description="a whole number of 0 or more")
    use_version: int = Field(-1, strict=True, lt=MAX_NUMBER, description="a version's number, or -1 to train")
