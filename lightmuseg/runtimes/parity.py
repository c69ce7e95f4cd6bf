"""Proof, on real pixels, that a runtime gives what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lightmuseg.classes import indices_of


@dataclass(frozen=True)
class Tolerance:
    """The most that a runtime may differ.

    Attributes:
        error: share of the largest logit; None where only the classes count.
        changed: share of pixels of another class.
    """

    error: float | None
    changed: float


# float16 keeps 11 binary digits, bfloat16 8; the network has some sixty layers. INT8 is proven on labelled tiles, by
# its Dice, when it is made; here only that it is the same network.
TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-3),
    "float16": Tolerance(2e-2, 5e-3),
    "bfloat16": Tolerance(1e-1, 1e-2),
    "int8": Tolerance(None, 5e-2),
}


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
        tolerance = TOLERANCES[self.precision]
        # not <= where a figure is no number
        return self.changed <= tolerance.changed and (tolerance.error is None or self.error <= tolerance.error)

    def __str__(self) -> str:
        tolerance = TOLERANCES[self.precision]
        most = "" if tolerance.error is None else f" (at most {tolerance.error:.2g})"
        return (
            f"logits differ by {self.error:.2g} of the largest{most}, {self.changed:.3%} of the pixels change class "
            f"(at most {tolerance.changed:.1%}) on {self.tiles} tiles in {self.precision}"
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
