"""Trained models: what their files say of themselves, where they are, and the networks that they describe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from .card import ModelCard
    from .model import Model


def open_model(model: str, **values: Any) -> Model:
    """:meth:`.Model.open`, for configs."""
    from .model import Model

    return Model.open(model, **values)


def card_for(network: nn.Module, **values: Any) -> ModelCard:
    """The card of a network in training.

    A network class that is not in this package is not named: whoever loads the weights must also give its config.

    Args:
        network: as it is trained.
        values: the other attributes of :class:`.ModelCard`.
    """
    from .card import ModelCard
    from .model import ARCHITECTURES

    name = type(network).__name__
    known = ARCHITECTURES.get(name) is type(network)
    about = {"architecture": name, "network": network.arguments} if known else {"architecture": ""}
    merged = {str(code): other for code, other in values.pop("merged_codes", {}).items()}
    return ModelCard(**about, **values, merged_codes=merged)
