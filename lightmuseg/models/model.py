"""A file of weights and the network that it describes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightmuseg.errors import InputError
from lightmuseg.networks import LightMuSeg, UNet
from lightmuseg.networks.weights import load_state, read_state_dict
from lightmuseg.provenance import sha256_of

from .card import IMAGENET_DEVIATION, IMAGENET_MEAN, ModelCard, card_of
from .packaged import find_model

logger = logging.getLogger(__name__)

ARCHITECTURES: dict[str, type[nn.Module]] = {"LightMuSeg": LightMuSeg, "UNet": UNet}
# what weights without a card are taken for, by the channels of their head: the paper's models
PAPER_CLASSES = {
    1: {"tumor": [1]},
    5: {"tumor": [1], "stroma": [2], "lymphocytic_infiltrate": [3], "necrosis_or_debris": [4]},
}


class Model:
    """Trained weights that know what they are.

    Attributes:
        path: of the file.
        card: its description.
        weights: its tensors by name.

    Example:
        >>> Model.open("tumor").card.class_names
        ('tumor',)
    """

    def __init__(self, path: Path, card: ModelCard, weights: Mapping[str, torch.Tensor]) -> None:
        self.path, self.card, self.weights = path, card, weights

    @classmethod
    def open(
        cls,
        model: str | Path = "tumor",
        classes: Mapping[str, Sequence[int]] | None = None,
        backbone: str | None = None,
        msffm: bool | None = None,
        mpp: float | None = None,
        tile_size: int | None = None,
        assumed: Mapping[str, Any] | None = None,
    ) -> Model:
        """Read a model.

        What a config states completes weights without a card, such as those of earlier versions; None states nothing.
        Of a card that is there ``mpp`` and ``tile_size`` may be replaced, and the others must agree with it.

        Args:
            model: a name of ``lightmuseg models``, or the path of a ``model.pt``.
            classes: BCSS codes by class name.
            backbone, msffm: of the network.
            mpp: um/px.
            tile_size: side of a tile in pixels.
            assumed: any of these, and of a card's other values, that hold only for weights without a card.

        Raises:
            InputError: for a file that is no model, or values that contradict its card.
        """
        path = find_model(model)
        weights = read_state_dict(path)
        stated = {"classes": classes, "backbone": backbone, "msffm": msffm, "mpp": mpp, "tile_size": tile_size}
        given = {name: value for name, value in stated.items() if value is not None}
        card = card_of(weights, path)
        if card is None:
            return cls(path, _assumed(weights, path, {**(assumed or {}), **given}), weights)
        known = {"classes": card.classes, **card.network}
        for name, value in given.items():
            if name in known and _ordered(known[name]) != _ordered(value):
                raise InputError(
                    f"{path}: its card says {name}={known[name]!r}, not {value!r}; leave {name} out of the config."
                )
        card = dataclasses.replace(card, **{name: given[name] for name in ("mpp", "tile_size") if name in given})
        return cls(path, card, weights)

    @cached_property
    def sha256(self) -> str:
        """Of the file."""
        return sha256_of(self.path)

    def network(self, own: nn.Module | None = None, by_imagenet: bool = False, **changes: Any) -> nn.Module:
        """The network with its weights, on the CPU in evaluation mode: normalised [B, 3, H, W] to logits.

        Args:
            own: a network of another architecture, to load the weights into.
            by_imagenet: whether the input will be normalised by ImageNet's mean and deviation, as runtimes do, and not
                by the card's.
            changes: arguments of the architecture's constructor, such as ``output_stride`` or ``dropout``; those that
                it does not have are left out.

        Raises:
            InputError: where the weights do not fit.
        """
        card = self.card
        if own is None and card.architecture not in ARCHITECTURES:
            raise InputError(
                f"{self.path}: is of the network {card.architecture or 'of a config'!r}; give the config that declares "
                "it by --override."
            )
        if own is None:
            make = ARCHITECTURES[card.architecture]
            changes = {name: value for name, value in changes.items() if name in signature(make).parameters}
            try:
                own = make(out_channels=card.channels, encoder_weights=None, **{**card.network, **changes})
            except (TypeError, ValueError) as error:
                raise InputError(f"{self.path}: its card's network cannot be made ({error}).") from error
        load_state(own, self.weights, self.path)
        own.eval()
        is_imagenet = (card.image_mean, card.image_deviation) == (list(IMAGENET_MEAN), list(IMAGENET_DEVIATION))
        return Renormalised(own, card) if by_imagenet and not is_imagenet else own

    def describe(self) -> dict[str, Any]:
        """What a record of results says of it."""
        return {
            "weights_sha256": self.sha256,
            "network": self.card.architecture,
            **{key: value for key, value in self.card.network.items() if key in ("backbone", "msffm")},
            "tile_size": self.card.tile_size,
            **{key: value for key in ("name", "limits") if (value := getattr(self.card, key))},
        }


class Renormalised(nn.Module):
    """A network of another normalisation than ImageNet's, for input that is normalised by that."""

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        super().__init__()
        self.network = network
        own, other = torch.tensor(card.image_deviation), torch.tensor(IMAGENET_DEVIATION)
        shift = (torch.tensor(IMAGENET_MEAN) - torch.tensor(card.image_mean)) / own
        self.register_buffer("factor", (other / own).view(1, 3, 1, 1))
        self.register_buffer("shift", shift.view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of [B, 3, H, W]."""
        logits: torch.Tensor = self.network(x * self.factor + self.shift)
        return logits


def _ordered(value: Any) -> Any:
    """What tells classes in another order apart: the order is that of the map's indices."""
    return list(value.items()) if isinstance(value, Mapping) else value


def _assumed(weights: Mapping[str, torch.Tensor], path: Path, given: dict[str, Any]) -> ModelCard:
    """The card of weights that have none: what a config gives, else the paper's network of as many channels."""
    is_unet = "segmentation_head.0.weight" in weights
    head = weights.get("segmentation_head.0.weight" if is_unet else "head.conv.weight")
    channels = None if head is None else len(head)
    if "classes" not in given and channels not in PAPER_CLASSES:
        raise InputError(f"{path}: does not say its classes; give the config that it was trained with by --override.")
    given = {"backbone": "mobilenet_v2", **given}
    network = {"backbone": given.pop("backbone")}
    msffm = given.pop("msffm", None)
    if not is_unet:
        network["msffm"] = any(name.startswith("msffm.") for name in weights) if msffm is None else msffm
    architecture = "UNet" if is_unet else "LightMuSeg"
    classes = given.pop("classes", None)
    about = {**given, "architecture": architecture, "network": network}
    card = ModelCard(classes=classes or PAPER_CLASSES[channels], **about)
    if channels not in (None, card.channels):
        raise InputError(
            f"{path}: has {channels} outputs, not {card.channels} for the classes {', '.join(card.class_names)}; "
            "give the config that it was trained with."
        )
    if classes is None:
        logger.warning(
            "%s: carries no description, and is taken for %s at %g um/px.", path, ", ".join(card.class_names), card.mpp
        )
    return card
