"""The slide engine as a bundle declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from lightmuseg.areas.region_of_interest import check_region
from lightmuseg.data import load_tiles, manifest_hash
from lightmuseg.errors import InputError
from lightmuseg.files import require_space
from lightmuseg.networks.weights import load_weights
from lightmuseg.provenance import sha256_of
from lightmuseg.runtimes import int8_folder, require_device, require_int8, require_runtime

from .options import Options
from .segmenter import SlideSegmenter
from .unfinished import NEEDED_BYTES

CONFIG = "inference_wsi.json"


def run_bundle(
    bundle: Path, override: Path | None, slides: Sequence[Path], output: Path, values: Mapping[str, Any]
) -> None:
    """Run what a bundle's inference_wsi.json declares, as ``python -m monai.bundle run`` does.

    Args:
        bundle: the bundle's root.
        override: a config whose keys go before.
        slides: files, or folders of DICOM series.
        output: folder of the results.
        values: of keys at the config's top.

    Raises:
        InputError: for a config that is not there, and what :class:`.SlideSegmenter` raises.
    """
    _filled(bundle, override, slides, output, values).get_parsed_content("run")


def load_segmenter(
    bundle: Path, override: Path | None, slides: Sequence[tuple[str, float | None]], output: Path,
    values: Mapping[str, Any],
) -> SlideSegmenter:  # fmt: skip
    """The segmenter that a bundle's inference_wsi.json declares, with its trained network, before it has run.

    Args:
        bundle, override, output, values: as of :func:`run_bundle`.
        slides: paths, and um/px where given by hand; on the first that can be read the runtime is proven.
    """
    config = _filled(bundle, override, slides, output, values)
    if "checks" in config:
        config.get_parsed_content("checks")
    load_weights(config.get_parsed_content("network"), config.get_parsed_content("checkpoint"))
    return config.get_parsed_content("segmenter")


def require_possible(
    options: Options, device: torch.device | str, runtime: str | None, tile_size: int, output_stride: int, int8: str
) -> None:
    """Refuse all that can be known to fail before a network is loaded or a slide is opened.

    Args:
        options: of the run.
        device: of the network.
        runtime: as of :func:`.make_runtime`.
        tile_size, output_stride: of the network's tiles.
        int8: folder of the network in INT8.

    Raises:
        InputError: for a device that is not here, a package that is not installed, a network in INT8 that was made for
            other tiles, a region that cannot be read, or an output folder that cannot be written.
    """
    require_device(device)
    if runtime not in (None, "auto"):
        require_runtime(runtime, device)
    if runtime == "openvino_int8":
        require_int8(Path(int8), tile_size, output_stride)
    if options.region is not None:
        check_region(options.region)
    require_space(options.output_dir, NEEDED_BYTES)


def _filled(
    bundle: Path, override: Path | None, slides: Sequence[Any], output: Path, values: Mapping[str, Any]
) -> ConfigParser:
    given = {"slides": list(slides), "output_dir": output, **values}
    if "device" in given:
        given["device"] = _device(given["device"])
    return configured([bundle / "configs" / CONFIG, *([override] if override else [])], bundle, given)


def _device(name: str) -> torch.device:
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device {name}: is no device of PyTorch; give cpu or cuda:0.") from error


def quantize_bundle(
    bundle: Path, override: Path | None, checkpoint: Path | None, dataset: Path, max_drop: float = 0.002
) -> str:
    """Make a bundle's network in INT8, beside its weights.

    Args:
        bundle: the bundle's root.
        override: a config whose keys go before.
        checkpoint: the weights; None for the config's.
        dataset: what 'lightmuseg prepare' wrote.
        max_drop: Dice that may be lost on the tiles that control.

    Returns:
        What was made, and what it loses.

    Raises:
        InputError: for a config, weights or a dataset that are not there, and what :func:`.quantize` raises.
    """
    if find_spec("nncf") is None or find_spec("openvino") is None:
        raise InputError("nncf and openvino are not installed; pip install 'lightmuseg[int8]'.")
    from lightmuseg.runtimes.quantization import quantize

    above = [override] if override else []
    config = configured([bundle / "configs" / CONFIG, *above], bundle, {"checkpoint": checkpoint} if checkpoint else {})
    training = configured([bundle / "configs" / "train.json", *above], bundle)
    path, network = (config.get_parsed_content(name) for name in ("checkpoint", "network"))
    load_weights(network, path)
    coding = {name: training.get_parsed_content(name) for name in ("classes", "ignored_codes", "merged_codes")}
    splits = {split: load_tiles(dataset, split) for split in ("train", "val", "test")}
    folder = int8_folder(path)
    about = {"weights_sha256": sha256_of(path), "dataset": manifest_hash(dataset)}
    record = quantize(network, splits, coding, config.get_parsed_content("tile_size"), folder, max_drop, about)
    before, after = (100 * record[name]["test"] for name in ("dice_float32", "dice_int8"))
    return (
        f"{folder}: Dice on the test tiles {before:.2f} in float32, {after:.2f} in INT8 ({after - before:+.2f} "
        f"points); {record['agreement']:.2%} of their pixels keep their class. Use it by --runtime openvino_int8."
    )


def configured(paths: Sequence[Path], bundle: Path, values: Mapping[str, Any] | None = None) -> ConfigParser:
    """Configs of a bundle, parsed as one, with values of keys at the top.

    In text that stands in a config MONAI resolves ``@``, ``%``, ``#`` and ``$``, and a file may be called so. So the
    config holds an expression for each value, and what that gives is left as it is.

    Args:
        paths: of the configs; the keys of later ones go before.
        bundle: the bundle's root.
        values: by key; of a path the config gets the text, absolute.

    Raises:
        InputError: for a config that is not there.
    """
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the bundle's folder with --bundle, a config with --override.")
    values = {"bundle_root": bundle.resolve(), **(values or {})}
    config = ConfigParser(globals={"given": [_plain(value) for value in values.values()]})
    config.read_config(list(paths))
    for number, name in enumerate(values):
        config[name] = f"$given[{number}]"
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value.absolute()) if isinstance(value, Path) else value
