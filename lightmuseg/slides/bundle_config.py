"""Makes the segmenter that a command line or a bundle's config asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightmuseg.errors import InputError, user_fault
from lightmuseg.files import require_space

from .segmenter import Segmenter
from .unfinished import NEEDED_BYTES

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

CONFIG = "inference_wsi.json"


def make_segmenter(values: Mapping[str, Any], bundle: Path | None = None, overrides: Sequence[Path] = ()) -> Segmenter:
    """The segmenter of a command line: of its values alone, or as a bundle's inference_wsi.json declares it.

    Args:
        values: by name of an argument of :class:`.Segmenter`, which is a key at the config's top too; the model is
            ``checkpoint``.
        bundle: its root, where its config decides what the values do not.
        overrides: configs whose keys replace the bundle's.

    Raises:
        InputError: for a config that is not there, an output folder that cannot be written, and what
            :class:`.Segmenter` raises.
    """
    if bundle or overrides:
        segmenter = _declared(values, bundle, overrides)
    else:
        arguments = {"checkpoint": "tumor", **values}
        segmenter = Segmenter(arguments.pop("checkpoint"), **arguments)
    if "output_dir" in values:
        require_space(values["output_dir"], NEEDED_BYTES)
    return segmenter


def _declared(values: Mapping[str, Any], bundle: Path | None, overrides: Sequence[Path]) -> Segmenter:
    if bundle is None:
        from lightmuseg.models.packaged import bundle_folder

        bundle = bundle_folder()
    config = configured([bundle / "configs" / CONFIG, *overrides], bundle, values)
    try:
        segmenter: Segmenter = config.get_parsed_content("segmenter")
    except RuntimeError as error:
        # as which MONAI passes on what the parts of a config raise
        fault = user_fault(error)
        if fault is None:
            raise
        raise InputError(fault) from error
    return segmenter


def configured(paths: Sequence[Path], bundle: Path, values: Mapping[str, Any] | None = None) -> ConfigParser:
    """Configs of a bundle, parsed as one, with values of keys at the top.

    In text that stands in a config MONAI resolves ``@``, ``%``, ``#`` and ``$``, and a file may be called so. So the
    config holds an expression for each value, and what that gives is left as it is.

    Args:
        paths: of the configs; the keys of later ones replace those of earlier ones.
        bundle: the bundle's root.
        values: by key; of a path the config gets the text, absolute.

    Raises:
        InputError: for a config that is not there.
    """
    from monai.bundle import ConfigParser

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
