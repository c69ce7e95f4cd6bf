"""Pages of HTML, filled in from templates that lie beside the modules that write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined, Template


def page_template(package: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None) -> Template:
    """A template that escapes what it is given and refuses to leave out what it names.

    Args:
        package: in which it lies, ``__package__`` of who asks.
        name: of its file.
        filters: functions that it calls by name.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(filters or {})
    return environment.from_string(files(package).joinpath(name).read_text(encoding="utf-8"))
