"""What of a slide could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Damage:
    """The damage that a run met with, gathered row by row.

    Attributes:
        tiles: of the network, of which a part or all could not be read.
        finer: tiles that were read from a finer level than the model's, a part of which is damaged.
        places: why, of each tile of the slide, and in how many tiles of the network.
    """

    tiles: int = 0
    finer: int = 0
    places: Counter[str] = field(default_factory=Counter)

    def add(self, row: Mapping[str, Any]) -> None:
        """Gather what the record of a row says."""
        self.tiles += len(row["unread"])
        self.finer += row["finer"]
        for reasons in row["unread"]:
            self.places.update(reasons)
