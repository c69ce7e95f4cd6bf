"""What a network's outputs mean: channels, class indices, and the names and colours of classes.

One channel is one class against everything else, by a sigmoid. Several are everything else and the classes, by a
softmax. A map holds 0 (everything else), the classes from 1 in their order, and 255 where the slide could not be read;
a label holds 255 where nobody annotated, and 255 - i where all that is known is that it is not class i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch

    Array = TypeVar("Array", np.ndarray, torch.Tensor)

OTHER = 0
# of a map, where the slide could not be read, and of a label, where nothing is annotated
UNREAD = IGNORED = 255
# what maps and measurements call what is no class of a model
RESERVED = ("other", "unread", "other_tissue", "tissue", "analysed")
COLOURS = {
    "tumor": (220, 38, 38),
    "stroma": (34, 160, 70),
    "lymphocytic_infiltrate": (245, 200, 20),
    "necrosis_or_debris": (40, 80, 220),
}
# SNOMED CT: category and type, each by pydicom's name and the concept's number
CONCEPTS = {
    "tumor": ("MorphologicallyAbnormalStructure", "49755003", "Neoplasm", "108369006"),
    "stroma": ("Tissue", "85756007", "ConnectiveTissue", "21793004"),
    "lymphocytic_infiltrate": ("MorphologicallyAbnormalStructure", "49755003", "InflammationMorphologic", "23583003"),
    "necrosis_or_debris": ("MorphologicallyAbnormalStructure", "49755003", "Necrosis", "6574001"),
}
ANY_TISSUE = ("Tissue", "85756007", "Tissue", "85756007")
# for classes that are not the paper's
SPARE_COLOURS = ((150, 60, 200), (0, 180, 190), (240, 130, 20), (120, 90, 60))
OTHER_COLOUR, UNREAD_COLOUR = (255, 255, 255), (128, 128, 128)


def palette_of(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
    """RGB of class index 0 (everything else) and of each class, in order.

    >>> palette_of(["tumor"])
    [(255, 255, 255), (220, 38, 38)]
    """
    unknown = [name for name in class_names if name not in COLOURS]
    spare = {name: SPARE_COLOURS[index % len(SPARE_COLOURS)] for index, name in enumerate(unknown)}
    return [OTHER_COLOUR, *(COLOURS.get(name) or spare[name] for name in class_names)]


def colour_table(class_names: Sequence[str]) -> np.ndarray:
    """RGB uint8 [256, 3] of each index of a map; indices that mean nothing are black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(class_names) + 1] = palette_of(class_names)
    table[UNREAD] = UNREAD_COLOUR
    return table


def meanings_of(class_names: Sequence[str]) -> dict[int, str]:
    """What each index of a map says.

    >>> meanings_of(["tumor"])
    {0: 'other', 1: 'tumor', 255: 'unread'}
    """
    return {**dict(enumerate(["other", *class_names])), UNREAD: "unread"}


def channels_of(class_names: Sequence[str]) -> int:
    """The channels of a network that tells these classes apart.

    >>> channels_of(["tumor"]), channels_of(["tumor", "stroma"])
    (1, 3)
    """
    return 1 if len(class_names) == 1 else 1 + len(class_names)


def probabilities_of(logits: Array, axis: int = 0) -> Array:
    """Probabilities from logits, of NumPy or PyTorch, whose channels lie along ``axis``."""
    if not isinstance(logits, np.ndarray):
        return logits.sigmoid() if logits.shape[axis] == 1 else logits.softmax(axis)
    from scipy.special import expit, softmax

    return expit(logits) if logits.shape[axis] == 1 else softmax(logits, axis=axis)


def indices_of(values: np.ndarray, threshold: float) -> np.ndarray:
    """Class indices uint8 [H, W] of probabilities or logits [C, H, W].

    Args:
        values: of one channel, or of everything else and the classes.
        threshold: above which one channel is its class: 0.5 of probabilities, 0 of logits.
    """
    return ((values[0] > threshold) if len(values) == 1 else values.argmax(0)).astype(np.uint8)
