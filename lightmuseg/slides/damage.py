"""What of a slide could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lightmuseg.errors import InputError

if TYPE_CHECKING:
    from lightmuseg.engine.rows import RowStore


@dataclass
class Damage:
    """The damage that a run met with.

    Attributes:
        tiles: of the network, of which a part or all could not be read.
        finer: tiles that were read from a finer level than the model's, a part of which is damaged.
        places: why, of each tile of the slide, and in how many tiles of the network.
        total: whether nothing of what is analysed could be read.
    """

    tiles: int = 0
    finer: int = 0
    places: Counter[str] = field(default_factory=Counter)
    total: bool = False

    @classmethod
    def of(cls, store: RowStore) -> Damage:
        """What the records of the rows say."""
        damage, unread, read = cls(), 0, 0
        for row in store.records():
            unread += row["counts"]["unread"]
            read += sum(row["counts"]["tissue"])
            damage.tiles += len(row["unread"])
            damage.finer += row["finer"]
            for reasons in row["unread"]:
                damage.places.update(reasons)
        damage.total = unread > 0 and read == 0
        return damage


def nothing_read(slide: Path, reasons: Iterable[str]) -> InputError:
    """The error of a slide of which nothing that is wanted can be read, with the first of the reasons."""
    first = next(iter(reasons), "copy or export it again.").removeprefix(f"{slide}: ")
    return InputError(f"{slide}: nothing of what is wanted of it can be read: {first}")
