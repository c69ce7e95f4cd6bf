"""A network in INT8 on disk."""

from __future__ import annotations

from pathlib import Path

from lightmuseg.errors import InputError
from lightmuseg.record import read_json, sha256_of

from .exported import ExportedRuntime

MODEL, RECORD = "model.xml", "quantization.json"
# what OpenVINO reads: the network, and its weights
FILES = (MODEL, "model.bin")


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
        InputError: where there is none, it is another network's, or not as it was made.
    """
    from .openvino import load

    again = "make it by 'lightmuseg quantize DATASET --model MODEL'"
    try:
        record = read_json(folder / RECORD, again)
        made_from, made_for, sums = record["weights"], record["tile_size"], record["sha256"]
        now = {name: sha256_of(folder / name) for name in FILES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: holds no network in INT8; {again}.") from error
    if (made_from, made_for) != (weights, tile_size):
        raise InputError(f"{folder}: was made from other weights or for another tile size; delete it and {again}.")
    if now != sums:
        raise InputError(f"{folder}: its files are not those that were made; delete it and {again}.")
    return load(folder / MODEL, tile_size, "int8")
