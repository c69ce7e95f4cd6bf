"""What a file of weights says of itself: all that is needed to run it, and what to know before trusting it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightmuseg import __version__
from lightmuseg.classes import ANY_TISSUE, CONCEPTS, RESERVED, UNREAD, channels_of, palette_of
from lightmuseg.errors import InputError
from lightmuseg.wsi.tiff import MPP_RANGE

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ModelCard:
    """The description that lies in a ``model.pt``.

    Attributes:
        classes: BCSS codes by class name, in the order of the map's indices from 1.
        architecture: name of the network's class in ``lightmuseg.networks``; "" for another.
        network: arguments of its constructor, but for channels and starting weights.
        mpp: um/px of the pictures that it was trained on.
        tile_size: side of its tiles in pixels, a multiple of 32.
        image_mean, image_deviation: that normalise RGB in [0, 1].
        ignored_codes: BCSS codes that were left out of loss and metrics.
        merged_codes: BCSS codes that were taken for others.
        name: that a user calls it by.
        dataset: what it was trained on.
        licence: of the weights.
        figures: of its validation or test, by name.
        limits: what it has not learned and where not to trust it, in words, at most 2000 characters.
        version: of the package that made it.

    Raises:
        InputError: for an invalid value.
    """

    classes: Mapping[str, Sequence[int]]
    architecture: str = "LightMuSeg"
    network: Mapping[str, Any] = field(default_factory=dict)
    mpp: float = 0.25
    tile_size: int = 512
    image_mean: Sequence[float] = IMAGENET_MEAN
    image_deviation: Sequence[float] = IMAGENET_DEVIATION
    ignored_codes: Sequence[int] = (0, 7)
    merged_codes: Mapping[str, int] = field(default_factory=dict)
    name: str = ""
    dataset: str = ""
    licence: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    limits: str = ""
    version: str = __version__

    def __post_init__(self) -> None:
        for name, passes in _TESTS.items():
            value = getattr(self, name)
            if not passes(value):
                raise InputError(f"the model's card says {name}={value!r}, which is invalid")
            # as a file gives it back
            object.__setattr__(self, name, _plain(value))
        for name in set(RESERVED) & set(self.classes):
            raise InputError(f"a class cannot be named {name!r}, as maps and measurements call what is no class so")

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the map's indices from 1."""
        return tuple(self.classes)

    @property
    def channels(self) -> int:
        """Of the network's output."""
        return channels_of(self.class_names)

    def plain(self) -> dict[str, Any]:
        """Plain values; with the colour and the SNOMED CT concept of each class, for those who read the file alone."""
        names = self.class_names
        return {
            **dataclasses.asdict(self),
            "colours": dict(zip(names, map(list, palette_of(names)[1:]))),
            "concepts": {name: CONCEPTS.get(name, ANY_TISSUE)[3] for name in names},
        }


def save_model(path: str | Path, weights: Mapping[str, Any], card: ModelCard) -> None:
    """Write weights and their card as one file, whole.

    The file is a state dict like any other, for every program that reads such: the card is an attribute of the dict,
    which PyTorch keeps, and reads as data alone.
    """
    from lightmuseg.networks.saved import write_saved

    state = OrderedDict(weights)
    state.card = card.plain()  # type: ignore[attr-defined]
    write_saved(path, state)


def card_of(weights: Mapping[str, Any], path: str | Path) -> ModelCard | None:
    """The card of a state dict that was read from ``path``; None where it has none.

    Raises:
        InputError: for a card with invalid values.
    """
    plain = getattr(weights, "card", None)
    if plain is None:
        return None
    known = {each.name for each in dataclasses.fields(ModelCard)}
    try:
        return ModelCard(**{key: value for key, value in plain.items() if key in known})
    except (InputError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: {error}; copy or download the file again.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_codes(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(type(code) is int and 0 <= code < 256 for code in value)


def _is_triple(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3 and all(map(_is_number, value))


def _is_table(value: Any, test: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_name(key) and test(one) for key, one in value.items())


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w .+()-]{1,64}", value) is not None


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_TESTS = {
    "classes": lambda value: _is_table(value, _is_codes) and 1 <= len(value) < UNREAD,
    "architecture": _is_text,
    "network": lambda value: _is_table(value, lambda one: one is None or isinstance(one, (bool, int, float, str))),
    "mpp": lambda value: _is_number(value) and MPP_RANGE[0] <= value <= MPP_RANGE[1],
    "tile_size": lambda value: type(value) is int and value > 0 and value % 32 == 0,
    "image_mean": _is_triple,
    "image_deviation": lambda value: _is_triple(value) and min(value) > 0,
    "ignored_codes": _is_codes,
    "merged_codes": lambda value: _is_table(value, lambda one: type(one) is int),
    "name": _is_text,
    "dataset": _is_text,
    "licence": _is_text,
    "figures": lambda value: _is_table(value, _is_number),
    "limits": lambda value: _is_text(value) and len(value) <= 2000,
    "version": _is_text,
}
