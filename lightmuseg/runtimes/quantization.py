"""INT8 by NNCF, with its loss measured."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lightmuseg.classes import IGNORED, indices_of
from lightmuseg.data import CodesToClassesd, load_tiles, manifest_hash
from lightmuseg.errors import InputError
from lightmuseg.files import whole_folder
from lightmuseg.models.model import Model
from lightmuseg.networks import fold
from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_json
from lightmuseg.wsi.images import read_codes, read_rgb

from .cache import weights_hash
from .int8 import FILES, MODEL, RECORD, int8_folder
from .openvino import converted, load, save
from .parity import changed_share
from .runtime import Runtime

if TYPE_CHECKING:
    import openvino

CALIBRATION_TILES = 300
NEEDED_BYTES = 50_000_000
# What stays in float32, since it loses most: the encoder, whose inverted residuals end in no activation, and attention,
# which is made of means; the head costs nothing. docs/performance.md has the figures.
KEPT = r".*\.(encoder|channel_attention|spatial_attention|attention|head)\..*"
# tiles by which convolutions are put in order, where some must go back
RANKING_TILES = 40

Tile = tuple[np.ndarray, np.ndarray]
Reader = Callable[[Mapping[str, Any]], Tile]


def quantize_model(model: str | Path, dataset: Path, max_drop: float = 0.002, output_mpp: float | None = None) -> str:
    """Make a model in INT8, beside its weights; its card says the classes and which codes count.

    Args:
        model: as of :meth:`.Model.open`.
        dataset: what 'lightmuseg prepare' wrote.
        max_drop: Dice that may be lost on the tiles that control.
        output_mpp: um/px of the maps to come; None for twice the model's.

    Returns:
        What was made, and what it loses.

    Raises:
        InputError: for a model or a dataset that is not there, and what :func:`.quantize` raises.
    """
    if find_spec("nncf") is None or find_spec("openvino") is None:
        raise InputError("nncf and openvino are not installed; pip install 'lightmuseg[int8]'.")
    opened = Model.open(model)
    card = opened.card
    coding = {name: getattr(card, name) for name in ("classes", "ignored_codes", "merged_codes")}
    splits = {split: load_tiles(dataset, split) for split in ("train", "val", "test")}
    folder = int8_folder(opened.path)
    about = {"weights_sha256": opened.sha256, "dataset": manifest_hash(dataset)}
    stride = 1 if output_mpp is not None and output_mpp < 1.5 * card.mpp else 2
    network = opened.network(by_imagenet=True, output_stride=stride)
    record = quantize(network, splits, coding, card.tile_size, folder, max_drop, about)
    before, after = (100 * record[name]["test"] for name in ("dice_float32", "dice_int8"))
    return (
        f"{folder}: Dice on the test tiles {before:.2f} in float32, {after:.2f} in INT8 ({after - before:+.2f} "
        f"points); {record['agreement']:.2%} of their pixels keep their class. Use it by --runtime openvino_int8."
    )


def quantize(
    network: nn.Module,
    splits: Mapping[str, Sequence[Mapping[str, Any]]],
    coding: Mapping[str, Any],
    tile_size: int,
    folder: Path,
    max_drop: float,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Make a trained network in INT8 for OpenVINO, measure what its Dice loses, and return the record of it.

    Convolutions that lose too much go back to float32 until the Dice on training and validation tiles is at most
    ``max_drop`` lower [1]_; the test tiles are looked at only in the end.

    Args:
        network: as it was trained.
        splits: tiles of "train", "val" and "test", with the paths "image" and "label".
        coding: arguments of :class:`.CodesToClassesd`.
        tile_size: side of the tiles.
        folder: of the result and its record, made whole or not at all.
        max_drop: Dice that may be lost, 0 to 1.
        about: plain values for the record.

    Raises:
        InputError: for a folder that is there, or tiles of another size.

    References:
        .. [1] NNCF, https://github.com/openvinotoolkit/nncf, quantization with accuracy control.
    """
    if not 0 <= max_drop <= 1:
        raise InputError(f"--max_drop {max_drop}: is not within 0 to 1; give 0.002.")
    if folder.exists():
        raise InputError(f"{folder}: is there already; delete it to make it anew.")
    started = time.monotonic()
    original = copy.deepcopy(network).cpu().eval()
    read, classes = _reader(coding, tile_size), len(coding["classes"])
    train, control, test = splits["train"], [*splits["train"], *splits["val"]], splits["test"]
    calibration = train[:: max(1, len(train) // CALIBRATION_TILES)]
    with whole_folder(folder, NEEDED_BYTES) as partial, tempfile.TemporaryDirectory() as temporary:
        model = converted(fold(original), tile_size)
        plain = Path(temporary) / MODEL
        save(model, plain)
        save(_quantized(model, read, calibration, control, classes, max_drop), partial / MODEL)
        before, after = load(plain, tile_size, "float32"), load(partial / MODEL, tile_size, "int8")
        record = {
            **environment(),
            **about,
            "weights": weights_hash(original),
            "sha256": {name: sha256_of(partial / name) for name in FILES},
            "tile_size": tile_size,
            "output_stride": after.output_stride,
            "max_drop": max_drop,
            "calibration_tiles": len(calibration),
            "control_tiles": len(control),
            "test_tiles": len(test),
            **_measured(before, after, read, control, test, classes),
            "seconds": round(time.monotonic() - started, 1),
        }
        write_json(partial / RECORD, record)
    return record


def _measured(
    before: Runtime, after: Runtime, read: Reader, control: Sequence[Any], test: Sequence[Any], classes: int
) -> dict[str, Any]:
    """Dice of both on the tiles that controlled and the test tiles, and the share of pixels that keep their class."""
    dice = {
        f"dice_{runtime.info.precision}": {
            "control": pooled_dice(runtime, map(read, control), classes),
            "test": pooled_dice(runtime, map(read, test), classes),
        }
        for runtime in (before, after)
    }
    changed = [changed_share(before(pixels), after(pixels)) for pixels, _ in map(read, test)]
    return {**dice, "agreement": 1 - float(np.mean(changed))}


def _reader(coding: Mapping[str, Any], tile_size: int) -> Reader:
    """What reads a tile: uint8 [1, H, W, 3] and class indices [1, H, W]."""
    coder = CodesToClassesd("label", **coding)

    def read(tile: Mapping[str, Any]) -> Tile:
        pixels = read_rgb(tile["image"])
        if pixels.shape[:2] != (tile_size, tile_size):
            raise InputError(f"{tile['image']}: is no tile of {tile_size} x {tile_size}; prepare with --tile_size.")
        return pixels[None], np.asarray(coder({"label": torch.from_numpy(read_codes(tile["label"]))})["label"])

    return read


def _quantized(
    model: openvino.Model, read: Reader, calibration: Sequence[Any], control: Sequence[Any], classes: int,
    max_drop: float,
) -> openvino.Model:  # fmt: skip
    """A model in INT8, calibrated on some tiles, whose Dice on others is at most ``max_drop`` lower."""
    import nncf

    def score(compiled: openvino.CompiledModel, tiles: Iterable[Mapping[str, Any]]) -> tuple[float, None]:
        return pooled_dice(lambda pixels: compiled(pixels)[0], map(read, tiles), classes), None

    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=nncf.Dataset(list(calibration), lambda tile: read(tile)[0]),
        validation_dataset=nncf.Dataset(control),
        validation_fn=score,
        max_drop=max_drop,
        drop_type=nncf.DropType.ABSOLUTE,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(calibration),
        # the fast correction of biases loses tens of points here
        fast_bias_correction=False,
        ignored_scope=nncf.IgnoredScope(patterns=[KEPT], validate=False),
        advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
            # weights of 7 bits: sums of 8-bit products overflow on processors without VNNI
            overflow_fix=nncf.OverflowFix.ENABLE
        ),
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            ranking_subset_size=RANKING_TILES
        ),
    )


def pooled_dice(network: Callable[[np.ndarray], np.ndarray], tiles: Iterable[Tile], classes: int) -> float:
    """Dice of all annotated pixels together, the mean over classes that occur.

    Args:
        network: uint8 [1, H, W, 3] to logits [1, C, h, w].
        tiles: pixels, and class indices [1, H, W] with 255 where nothing is annotated.
        classes: number of them, without "everything else".
    """
    both, sizes = np.zeros(classes), np.zeros(classes)
    for pixels, label in tiles:
        logits = F.interpolate(
            torch.from_numpy(np.array(network(pixels))), size=label.shape[-2:], mode="bilinear", align_corners=False
        )
        found, annotated = indices_of(logits[0].numpy(), 0), label != IGNORED
        for index in range(classes):
            of_found, of_label = (found == index + 1) & annotated, label == index + 1
            both[index] += (of_found & of_label).sum()
            sizes[index] += of_found.sum() + of_label.sum()
    occurs = sizes > 0
    return float((2 * both[occurs] / sizes[occurs]).mean()) if occurs.any() else 1.0
