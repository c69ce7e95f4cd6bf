"""The label server's start page: what a person needs first, as HTML without scripts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Template

from lightmuseg.classes import palette_of
from lightmuseg.pages import page_template

from . import FINAL, METHODS

MOST_IMAGES, MOST_LINES, MOST_CHARACTERS = 500, 20, 400
HASH_DIGITS = 12
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
    models = _models(info)
    used = {model["sha256"] for model in models if model["sha256"]}
    names = sorted(objects)
    final = [label for name in names if (label := _labels(objects[name]).get(FINAL))]
    saved = [moment for label in final if (moment := _moment(_mapping(_mapping(label).get("info")).get("ts")))]
    return _page(
        address,
        {
            "version": _text(info.get("version")),
            "total": len(names),
            "labelled": len(final),
            "saved": max(saved, default=None),
            "images": [_image(name, objects[name], used) for name in names[:MOST_IMAGES]],
            "more": max(0, len(names) - MOST_IMAGES),
            "models": models,
            "in_use": [version for model in models for version in model["versions"] if version["in_use"]],
            "training": _task(training),
            "scoring": _task(scoring),
        },
    )


def start_page_without_names(address: str) -> str:
    """The page for whoever is not known to the server: address, steps and links, nothing of slides and models."""
    return _page(address, None)


@cache
def _template() -> Template:
    return page_template(__package__, "start_page.html.jinja")


def _page(address: str, state: Mapping[str, Any] | None) -> str:
    page = _template().render(address=address, state=state, methods=METHODS, dash=NONE)
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), page)


def _image(name: str, entry: Any, used: Collection[str]) -> dict[str, Any]:
    """A row of the table of images; ``used`` has the hashes of the weights in use."""
    image = _mapping(_mapping(entry).get("image"))
    scores = _mapping(image.get("info"))
    labels = [(tag, _mapping(_mapping(label).get("info"))) for tag, label in sorted(_labels(entry).items())]
    shown = {method: _score(_mapping(scores.get(method)), used) for method in METHODS}
    faults = {score["text"] if score["failed"] else None for score in shown.values()}
    return {
        "name": name,
        "ending": _text(image.get("ext")),
        "labelled": FINAL in dict(labels),
        "labels": [
            {"tag": tag, "version": _count(info.get("version")), "saved": _moment(info.get("ts"))}
            for tag, info in labels
        ],
        "scores": shown,
        # that of all methods, which is said once
        "fault": faults.pop() if len(faults) == 1 else None,
    }


def _labels(entry: Any) -> Mapping[str, Any]:
    return _mapping(_mapping(entry).get("labels"))


def _score(scored: Mapping[str, Any], used: Collection[str]) -> dict[str, Any]:
    if error := _text(scored.get("error")).strip():
        return {"text": _cut(error.splitlines()[0]), "failed": True, "earlier": False}
    text = _share(scored.get("score"))
    return {
        "text": text,
        "failed": False,
        "earlier": text != NONE and bool(used) and scored.get("weights_sha256") not in used,
    }


def _models(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    models, trained = _mapping(info.get("models")), _mapping(info.get("train_stats"))
    rows = []
    for name in [*models, *(name for name in trained if name not in models)]:
        model, versions = _mapping(models.get(name)), _mapping(trained.get(name)).get("versions")
        classes = [str(one) for one in model.get("classes") or ()]
        mpp = model.get("mpp")
        rows.append(
            {
                "name": name,
                "classes": list(zip(classes, map(_hex, palette_of(classes)[1:]))),
                "mpp": f"{mpp:.4g}" if isinstance(mpp, (int, float)) else NONE,
                "sha256": _text(model.get("weights_sha256")),
                "hash": _text(model.get("weights_sha256"))[:HASH_DIGITS] or NONE,
                "versions": [_version(_mapping(one)) for one in reversed(versions or ())],
            }
        )
    return rows


def _version(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": _count(facts.get("version")),
        "first": "from" in facts,
        "in_use": facts.get("in_use") is True,
        "dice": _share(facts.get("dice")),
        "before": _share(facts.get("dice_before")),
        "held_out": _count(facts.get("held_out_tiles")),
        "tiles": _count(facts.get("tiles")),
        "images": _count(facts.get("images")),
        "added": _moment(facts.get("added")),
    }


def _task(task: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if task is None:
        return None
    lines = [_cut(_COLOURED.sub("", str(line))) for line in list(task.get("details") or ())[-MOST_LINES:]]
    return {
        "status": _text(task.get("status"))[:20] or NONE,
        "started": _moment(task.get("start_ts")),
        "ended": _moment(task.get("end_ts")),
        "lines": lines,
    }


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
    """A Dice or a score, which are 0 to 1; -1 says that there is none.

    >>> _share(0.51249), _share(-1), _share("0.5")
    ('0.512', '\u2013', '\u2013')
    """
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return f"{value:.3f}" if known else NONE


def _count(value: Any) -> str:
    """A whole number of 0 or more."""
    return f"{value:,}" if type(value) is int and 0 <= value < 10**12 else NONE


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _cut(line: str) -> str:
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}\u2026"


def _hex(colour: tuple[int, int, int]) -> str:
    return f"#{bytes(colour).hex()}"
