"""A model in INT8, by the tiles of a prepared dataset."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from lightmuseg.data import load_tiles, manifest_hash
from lightmuseg.errors import InputError
from lightmuseg.models.model import Model

from .int8 import int8_folder


def quantize_model(model: str | Path, dataset: Path, max_drop: float = 0.002) -> str:
    """Make a model in INT8, beside its weights; its card says the classes and which codes count.

    Args:
        model: as of :meth:`.Model.open`.
        dataset: what 'lightmuseg prepare' wrote.
        max_drop: Dice that may be lost on the tiles that control.

    Returns:
        What was made, and what it loses.

    Raises:
        InputError: for a model or a dataset that is not there, and what :func:`.quantize` raises.
    """
    if find_spec("nncf") is None or find_spec("openvino") is None:
        raise InputError("nncf and openvino are not installed; pip install 'lightmuseg[int8]'.")
    from .quantization import quantize

    opened = Model.open(model)
    card = opened.card
    coding = {name: getattr(card, name) for name in ("classes", "ignored_codes", "merged_codes")}
    splits = {split: load_tiles(dataset, split) for split in ("train", "val", "test")}
    folder = int8_folder(opened.path)
    about = {"weights_sha256": opened.sha256, "dataset": manifest_hash(dataset)}
    network = opened.network(output_stride=2)
    record = quantize(network, splits, coding, card.tile_size, folder, max_drop, about)
    before, after = (100 * record[name]["test"] for name in ("dice_float32", "dice_int8"))
    return (
        f"{folder}: Dice on the test tiles {before:.2f} in float32, {after:.2f} in INT8 ({after - before:+.2f} "
        f"points); {record['agreement']:.2%} of their pixels keep their class. Use it by --runtime openvino_int8."
    )
