"""One colour a class, as in Fig. 4 of the paper."""

from __future__ import annotations

from collections.abc import Sequence

COLOURS = {
    "tumor": (220, 38, 38),
    "stroma": (34, 160, 70),
    "lymphocytic_infiltrate": (245, 200, 20),
    "necrosis_or_debris": (40, 80, 220),
}
# For classes that are not the paper's.
SPARE = ((150, 60, 200), (0, 180, 190), (240, 130, 20), (120, 90, 60))
OTHER = (255, 255, 255)


def palette_of(class_names: Sequence[str]) -> list[tuple[int, int, int]]:
    """RGB of class index 0 (everything else) and of each class, in order.

    >>> palette_of(["tumor"])
    [(255, 255, 255), (220, 38, 38)]
    """
    unknown = [name for name in class_names if name not in COLOURS]
    spare = {name: SPARE[index % len(SPARE)] for index, name in enumerate(unknown)}
    return [OTHER, *(COLOURS.get(name) or spare[name] for name in class_names)]
