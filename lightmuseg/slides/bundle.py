"""The slide engine as a bundle declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from lightmuseg.errors import InputError

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
    paths = [bundle / "configs" / CONFIG, *([override] if override else [])]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file; name the bundle's folder with --bundle, a config with --override.")
    config = ConfigParser()
    config.read_config(paths)
    config["bundle_root"] = str(bundle.resolve())
    for name, value in {"slides": list(slides), "output_dir": output, **values}.items():
        config[name] = _plain(value)
    config.get_parsed_content("run")


def _plain(value: Any) -> Any:
    """A value that the parser leaves as it is: a file's name that begins with $ would be run as Python."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value.absolute()) if isinstance(value, Path) else value
