"""The one interface by which the slide engine calls a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from .parity import Parity


class Runtime(Protocol):
    """A network made ready to run.

    Attributes:
        tile_size: side of its tiles in pixels at the model's um/px.
        out_channels: of its logits; one means a sigmoid, several a softmax whose first is "everything else".
        output_stride: pixels of a tile to one of its logits.
        parity: with eager float32 PyTorch on real pixels; None where that was not asked for.
    """

    tile_size: int
    out_channels: int
    output_stride: int
    parity: Parity | None

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """Logits of tiles: uint8 [B, tile, tile, 3] to float32 [B, C, tile / stride, tile / stride].

        The same batch gives the same bits each time on the same machine.
        """

    def describe(self) -> dict[str, Any]:
        """What a record of a result says of it: kind, device, precision; a resumed run must have the same."""
