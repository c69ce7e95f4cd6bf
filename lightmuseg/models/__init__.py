"""Trained models: what their files say of themselves, where they are, and the networks that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .model import Model


def open_model(*words: Any, **values: Any) -> Model:
    """:meth:`.Model.open`, for configs."""
    from .model import Model

    return Model.open(*words, **values)
