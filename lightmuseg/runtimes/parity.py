"""Proof, on real pixels, that a runtime gives what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lightmuseg.classes import indices_of

# The most that a runtime may differ, by its precision: by a share of the largest logit, None where only the classes
# count, and in a share of pixels of another class.
# float16 keeps 11 binary digits, bfloat16 8; the network has some sixty layers. INT8 is proven on labelled tiles, by
# its Dice, when it is made; here only that it is the same network.
TOLERANCES = {"float32": (1e-4, 1e-3), "float16": (2e-2, 5e-3), "bfloat16": (1e-1, 1e-2), "int8": (None, 5e-2)}


@dataclass(frozen=True)
class Parity:
    """By how much a runtime differs from eager float32 PyTorch.

    Attributes:
        precision: of the runtime.
        tiles: that were compared.
        error: largest difference of logits as a share of the largest logit.
        changed: share of pixels whose class changes.
    """

    precision: str
    tiles: int
    error: float
    changed: float

    @property
    def passes(self) -> bool:
        """Within the tolerance of its precision."""
        max_error, max_changed = TOLERANCES[self.precision]
        # not <= where a figure is no number
        return self.changed <= max_changed and (max_error is None or self.error <= max_error)

    def __str__(self) -> str:
        max_error, max_changed = TOLERANCES[self.precision]
        most = "" if max_error is None else f" (at most {max_error:.2g})"
        return (
            f"logits differ by {self.error:.2g} of the largest{most}, {self.changed:.3%} of the pixels change class "
            f"(at most {max_changed:.1%}) on {self.tiles} tiles in {self.precision}"
        )


def parity(
    runtime: Callable[[np.ndarray], np.ndarray],
    reference: Callable[[np.ndarray], np.ndarray],
    tiles: np.ndarray,
    precision: str,
) -> Parity:
    """Compare logits of tiles, uint8 [N, tile, tile, 3]; ``precision`` is the runtime's."""
    # one after the other, since eager PyTorch needs 100 MB for each
    given, expected = runtime(tiles), np.concatenate([reference(tile[None]) for tile in tiles])
    largest = max(float(np.abs(expected).max()), np.finfo(np.float32).tiny)
    error = float(np.abs(given - expected).max()) / largest
    return Parity(precision, len(tiles), error, changed_share(given, expected))


def changed_share(given: np.ndarray, expected: np.ndarray) -> float:
    """The share of pixels whose classes differ, of logits [N, C, H, W]."""
    return float(np.mean([indices_of(one, 0) != indices_of(other, 0) for one, other in zip(given, expected)]))
