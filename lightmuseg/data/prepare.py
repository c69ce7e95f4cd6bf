"""Datasets from their published folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError

from .bcss import MASK_CODINGS, find_regions
from .split import split_patients
from .tiles import Cut, write_dataset

# Regions whose um/px differ by more are not of one dataset.
SCALE_TOLERANCE = 1.05


def prepare_bcss(
    source: Path,
    output: Path,
    masks: str = "masks",
    mask_coding: str = "bcss",
    val: Sequence[str] = (),
    test: Sequence[str] = (),
    val_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 42,
    tile_size: int = 512,
    min_annotated: float = 0.0,
) -> dict[str, Any]:
    """Write a BCSS folder as a prepared dataset, split by patient; see ``lightmuseg prepare bcss --help``.

    Returns:
        The manifest.

    Raises:
        InputError: for options or files that cannot be used.
    """
    if mask_coding not in MASK_CODINGS:
        raise InputError(f"mask_coding={mask_coding!r} is not known; one of {', '.join(MASK_CODINGS)}.")
    if tile_size < 32 or tile_size % 32:
        raise InputError(f"tile_size={tile_size} must be a multiple of 32 pixels.")
    if not 0 <= min_annotated <= 1:
        raise InputError(f"min_annotated={min_annotated} must be a share between 0 and 1.")
    regions = find_regions(source, masks)
    scales = sorted({region.mpp for region in regions})
    if scales[-1] > SCALE_TOLERANCE * scales[0]:
        raise InputError(f"{source}: regions of {scales[0]} and of {scales[-1]} um/px; one dataset has one scale.")
    split = split_patients((r.patient for r in regions), val_fraction, test_fraction, seed, val, test)
    options = {
        "dataset": "bcss",
        "masks": masks,
        "mask_coding": mask_coding,
        "tile_size": tile_size,
        "min_annotated": min_annotated,
    }
    if val or test:
        options |= {"val": sorted(val), "test": sorted(test)}
    else:
        options |= {"val_fraction": val_fraction, "test_fraction": test_fraction, "seed": seed}
    cuts = [Cut(region, split[region.patient]) for region in regions]
    return write_dataset(cuts, output, options, tile_size, mask_coding, min_annotated)
