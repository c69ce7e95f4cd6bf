"""Weights on disk: download, read, check and load them."""

from __future__ import annotations

import errno
import http.client
import shutil
import urllib.request
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from lightmuseg.errors import InputError
from lightmuseg.files import write_whole
from lightmuseg.provenance import sha256_of

from .saved import read_saved

DOWNLOAD_TIMEOUT_S = 30.0


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in ``path``, alone or under the key "model".

    Raises:
        InputError: where there is no file, it is damaged, or it holds anything but tensors by name.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such weights file; give the path of a .pth or .pt file.")
    content = read_saved(path, "copy or download it again")
    # methods of dict, since attributes that the file gives a dict may hide its own
    if isinstance(content, dict) and isinstance(dict.get(content, "model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in dict.items(content)
    ):
        raise InputError(f"{path}: holds no state dict (tensors by name); save network.state_dict() alone.")
    weights = OrderedDict(dict.items(content))
    # what models.card.save_model adds
    weights.card = getattr(content, "__dict__", {}).get("card")  # type: ignore[attr-defined]
    return weights


def check_fit(own: dict[str, torch.Tensor], given: dict[str, torch.Tensor], path: str | Path) -> None:
    """Raise an InputError that names the first keys and shapes in which ``given`` differs from ``own``."""
    differences = [f"{key} is missing" for key in own if key not in given and not key.endswith("num_batches_tracked")]
    differences += [f"{key} is not known" for key in given if key not in own]
    differences += [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in given and own[key].shape != given[key].shape
    ]
    if differences:
        more = f", and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise InputError(
            f"{path}: these weights do not fit the network: {', '.join(differences[:3])}{more}; "
            "give weights of the same architecture."
        )


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a whole network's state dict; side heads of deep supervision that ``network`` has not are left out.

    Raises:
        InputError: where the file cannot be read as weights, or its keys or shapes differ.
    """
    load_state(network, read_state_dict(path), path)


def load_state(network: nn.Module, given: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Load a state dict that was read from ``path``; see :func:`load_weights`."""
    own = network.state_dict()
    given = {key: value for key, value in given.items() if key in own or not key.startswith("side_heads.")}
    check_fit(own, given, path)
    network.load_state_dict(given)


def load_published(encoder: nn.Module, path: str | Path) -> None:
    """Load published weights into ``encoder``.

    An encoder with parts that no published weights exist for keeps the other ones in its attribute ``trunk``, which
    is then loaded alone. The method ``from_published`` of either, where it has one, leaves out what only a classifier
    has and gives the rest its own names.

    Raises:
        InputError: where the file cannot be read as weights, or its keys or shapes differ.
    """
    part = pretrained_part(encoder)
    weights = read_state_dict(path)
    if hasattr(part, "from_published"):
        weights = part.from_published(weights)
    check_fit(part.state_dict(), weights, path)
    part.load_state_dict(weights)


def pretrained_part(encoder: nn.Module) -> nn.Module:
    """What published weights fill and freezing keeps: the encoder's ``trunk`` where it has one, else all of it."""
    return getattr(encoder, "trunk", encoder)


def download_weights(url: str) -> Path:
    """The file of ``url`` in torch.hub's cache, downloaded first where missing, checked by the hash in its name.

    Raises:
        OSError: where it is not cached and cannot be downloaded.
    """
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    expected = target.stem.rsplit("-", 1)[-1]

    def download(path: Path) -> None:
        # some servers refuse Python's own name
        request = urllib.request.Request(url, headers={"User-Agent": "lightmuseg"})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT_S) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
        if not (digest := sha256_of(path)).startswith(expected):
            raise OSError(f"its SHA-256 is {digest}, not {expected}...")

    if not target.is_file():
        try:
            write_whole(target, download)
        except (OSError, http.client.HTTPException) as error:
            message = f"cannot download the ImageNet weights ({error}); {download_remedy()}"
            raise OSError(errno.EIO, message, url) from error
    return target


def download_remedy() -> str:
    """What to do where nothing can be downloaded."""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return f"give a weights file by encoder_weights=PATH, or put the official file into {folder}"
