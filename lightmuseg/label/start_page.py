"""The label server's start page: what a person needs first, as HTML without scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Template

from lightmuseg.classes import palette_of
from lightmuseg.pages import page_template

from . import FINAL, METHODS

MOST_IMAGES, MOST_LINES, MOST_CHARACTERS = 500, 20, 400
# What is shown for a value that is not there.
NONE = "\u2013"
# Colours of a terminal, and characters that HTML or UTF-8 cannot hold.
_COLOURED = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def start_page(
    info: Mapping[str, Any],
    objects: Mapping[str, Any],
    training: Mapping[str, Any] | None,
    scoring: Mapping[str, Any] | None,
    address: str,
) -> str:
    """The page with the state of the server.

    Clients may write anything into what is known of an image: a value that cannot be is shown as a dash.

    Args:
        info: what ``GET /info/`` answers.
        objects: images by name, as the datastore lists them.
        training: the task that ran last; None where there was none.
        scoring: likewise.
        address: of the server, such as ``http://127.0.0.1:8000``.
    """
    models, trained = info.get("models", {}), info.get("train_stats", {})
    versions = {name: trained.get(name, {}).get("versions", ())[::-1] for name in {**models, **trained}}
    used = [hash for model in models.values() if (hash := _text(model.get("weights_sha256")))]
    final = [label for entry in objects.values() if (label := _get(entry, "labels", FINAL)) is not None]
    saved = [moment for label in final if (moment := _moment(_get(label, "info", "ts")))]
    images = sorted(objects)
    return _page(
        address,
        {
            "version": info.get("version"),
            "total": len(images),
            "labelled": len(final),
            "saved": max(saved, default=None),
            "images": [_image(name, objects[name], used) for name in images[:MOST_IMAGES]],
            "more": len(images) - MOST_IMAGES,
            "models": {name: (models.get(name, {}), versions[name]) for name in versions},
            "in_use": [(name, one) for name, some in versions.items() for one in some if one.get("in_use") is True],
            "training": training,
            "scoring": scoring,
        },
    )


def start_page_without_names(address: str) -> str:
    """The page for whoever is not known to the server: address, steps and links, nothing of slides and models."""
    return _page(address, None)


@cache
def _template() -> Template:
    filters = {
        "get": _get, "text": _text, "share": _share, "count": _count, "moment": _moment, "lines": _lines,
        "colours": lambda classes: [f"#{bytes(colour).hex()}" for colour in palette_of(classes)[1:]],
    }  # fmt: skip
    return page_template(__package__, "start_page.html.jinja", filters)


def _page(address: str, state: Mapping[str, Any] | None) -> str:
    page = _template().render(address=address, state=state, methods=METHODS, final=FINAL, dash=NONE)
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), page)


def _image(name: str, entry: Any, used: list[str]) -> dict[str, Any]:
    """A row of the table of images; ``used`` has the hashes of the weights in use."""
    labels = _get(entry, "labels")
    scores = {method: _score(_get(entry, "image", "info", method), used) for method in METHODS}
    faults = {score["fault"] for score in scores.values()}
    return {
        "name": name + _text(_get(entry, "image", "ext")),
        "labels": dict(sorted(labels.items())) if isinstance(labels, Mapping) else {},
        "scores": scores,
        # that of all methods, which is shown once
        "fault": faults.pop() if len(faults) == 1 else "",
    }


def _score(scored: Any, used: list[str]) -> dict[str, Any]:
    (fault,) = _lines([_text(_get(scored, "error")).strip().split("\n")[0]])
    text = _share(_get(scored, "score"))
    earlier = text != NONE and bool(used) and _get(scored, "weights_sha256") not in used
    return {"text": text, "fault": fault, "earlier": earlier}


def _get(value: Any, *names: str) -> Any:
    """What stands under names in mappings within each other; None where one is not there, or no mapping."""
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _lines(details: Any) -> list[str]:
    """The last lines, short, without the colours of a terminal."""
    lines = [_COLOURED.sub("", str(line)) for line in list(details or ())[-MOST_LINES:]]
    return [line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}\u2026" for line in lines]


def _moment(value: Any) -> datetime | None:
    """A time in seconds (labels), or as text with a zone (versions) or in local time (tasks); None for anything else.

    >>> _moment("2026-03-01T12:00:00+0000").timestamp() == _moment(1772366400).timestamp()
    True
    """
    try:
        if isinstance(value, str):
            form = "%Y-%m-%dT%H:%M:%S%z" if "T" in value else "%Y-%m-%d %H:%M:%S"
            return datetime.strptime(value, form).astimezone()
        return datetime.fromtimestamp(value).astimezone()
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def _share(value: Any) -> str:
    """A Dice or a score, which are 0 to 1; -1 stands for none.

    >>> _share(0.51249), _share(-1), _share("0.5")
    ('0.512', '\u2013', '\u2013')
    """
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return f"{value:.3f}" if known else NONE


def _count(value: Any) -> str:
    """A whole number of 0 or more."""
    return f"{value:,}" if type(value) is int and 0 <= value < 10**12 else NONE
