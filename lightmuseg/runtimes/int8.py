"""A network in INT8 on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import read_json

from .runtime import Runtime

MODEL, RECORD = "model.xml", "quantization.json"
# what OpenVINO reads: the network, and its weights
FILES = (MODEL, "model.bin")
AGAIN = "make it by 'lightmuseg quantize DATASET --model MODEL'"
_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)


def int8_folder(checkpoint: str | Path) -> Path:
    """Where a checkpoint's network in INT8 lies: beside it, model.pt's in model_int8."""
    path = Path(checkpoint)
    return path.with_name(f"{path.stem}_int8")


def require_int8(folder: Path, tile_size: int, output_stride: int | None) -> dict[str, Any]:
    """The record of a network in INT8, which must have been made for such tiles.

    Args:
        folder: of the model and its record.
        tile_size: side of the tiles.
        output_stride: pixels of a tile to one of the logits; None where that is not known. Older records do not say it.

    Raises:
        InputError: where there is none, or for other tiles.
    """
    try:
        record = read_json(folder / RECORD, AGAIN)
        made_for, stride = record["tile_size"], record.get("output_stride")
    except _BROKEN as error:
        raise InputError(f"{folder}: holds no network in INT8; {AGAIN}.") from error
    if made_for != tile_size:
        raise InputError(f"{folder}: was made for tiles of {made_for} pixels, not {tile_size}; delete it and {AGAIN}.")
    _require_stride(folder, stride, output_stride)
    return record


def _require_stride(folder: Path, made_at: int | None, wanted: int | None) -> None:
    if None not in (made_at, wanted) and made_at != wanted:
        raise InputError(
            f"{folder}: was made at an output stride of {made_at} pixels, and this --output_mpp needs {wanted}; give "
            f"another --output_mpp or --runtime, or delete it and {AGAIN}, with this --output_mpp."
        )


def load_quantized(folder: Path, weights: str, tile_size: int, output_stride: int | None) -> Runtime:
    """The runtime of what :func:`.quantize` made.

    Args:
        folder: of the model and its record.
        weights: hash of those that it must have been made from, see :func:`.weights_hash`.
        tile_size, output_stride: of the tiles that it must have been made for, as of :func:`require_int8`.

    Raises:
        InputError: where there is none, it is another network's, or not as it was made.
    """
    from .openvino import load

    record = require_int8(folder, tile_size, output_stride)
    try:
        made_from, sums = record["weights"], record["sha256"]
        now = {name: sha256_of(folder / name) for name in FILES}
    except _BROKEN as error:
        raise InputError(f"{folder}: holds no network in INT8; {AGAIN}.") from error
    if made_from != weights:
        raise InputError(f"{folder}: was made from other weights; delete it and {AGAIN}.")
    if now != sums:
        raise InputError(f"{folder}: its files are not those that were made; delete it and {AGAIN}.")
    runtime = load(folder / MODEL, tile_size, "int8")
    # of a record that does not say it
    _require_stride(folder, runtime.output_stride, output_stride)
    return runtime
