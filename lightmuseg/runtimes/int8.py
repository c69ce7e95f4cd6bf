"""A network in INT8 on disk."""

from __future__ import annotations

import json
from pathlib import Path

from lightmuseg.errors import InputError

from .exported import ExportedRuntime

MODEL, RECORD = "model.xml", "quantization.json"


def int8_folder(checkpoint: str | Path) -> Path:
    """Where a checkpoint's network in INT8 lies: beside it, model.pt's in model_int8."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}_int8")


def load_quantized(folder: Path, weights: str, tile_size: int) -> ExportedRuntime:
    """The runtime of what :func:`.quantize` made.

    Args:
        folder: of the model and its record.
        weights: hash of those that it must have been made from, see :func:`.weights_hash`.
        tile_size: side of the tiles that it must have been made for.

    Raises:
        InputError: where there is none, or it is another network's.
    """
    from .openvino import load

    again = "make it by 'lightmuseg quantize DATASET --model MODEL'"
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made_from, made_for = record["weights"], record["tile_size"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: holds no network in INT8; {again}.") from error
    if (made_from, made_for) != (weights, tile_size):
        raise InputError(f"{folder}: was made from other weights or for another tile size; delete it and {again}.")
    return load(folder / MODEL, tile_size, "int8")
