"""Encoders by name, and the weights they start from."""

from __future__ import annotations

import errno
import http.client
import logging
import socket
from pathlib import Path

import torch
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from lightmuseg.errors import InputError, first_line
from lightmuseg.record import sha256_of

logger = logging.getLogger(__name__)
DOWNLOAD_TIMEOUT_S = 30.0


def build_encoder(backbone: str, in_channels: int, weights: str | None) -> nn.Module:
    """An encoder of MONAI's ``FLEXUNET_BACKBONE`` with five outputs, with its starting weights.

    Args:
        backbone: its registered name, such as "mobilenet_v2".
        in_channels: channels of the image.
        weights: "imagenet", "auto" (ImageNet where the file is cached or can be downloaded, else a warning and
            random weights), the path of a weights file, or None for random weights.

    Returns:
        The encoder; its attribute ``weights_source`` says what it starts from.

    Raises:
        ValueError: for a backbone that is not registered or has not five outputs.
        InputError: for a weights file that cannot be read or does not fit.
        OSError: for "imagenet" where the file is neither cached nor can be downloaded.
    """
    if backbone not in FLEXUNET_BACKBONE.register_dict:
        raise ValueError(f"backbone={backbone!r} is not registered; one of {sorted(FLEXUNET_BACKBONE.register_dict)}.")
    entry = FLEXUNET_BACKBONE.register_dict[backbone]
    if entry["feature_number"] != 5:
        raise ValueError(f"backbone={backbone!r} has {entry['feature_number']} outputs; LightMuSeg takes five.")

    def make(pretrained: bool) -> nn.Module:
        arguments = {"spatial_dims": 2, "in_channels": in_channels, "pretrained": pretrained}
        return entry["type"](**{**entry["parameter"], **arguments})

    if weights == "imagenet":
        encoder = make(pretrained=True)
        encoder.weights_source = "ImageNet"
    elif weights == "auto":
        encoder = _imagenet_or_random(make, backbone)
    elif weights is None:
        encoder = make(pretrained=False)
        encoder.weights_source = "random"
    else:
        encoder = make(pretrained=False)
        load_encoder_weights(encoder, weights)
        encoder.weights_source = f"{Path(weights).name} sha256:{sha256_of(weights)}"
    return encoder


def _imagenet_or_random(make, backbone: str) -> nn.Module:
    try:
        encoder = make(pretrained=True)
        encoder.weights_source = "ImageNet"
    except (OSError, RuntimeError, ValueError, NotImplementedError) as error:
        logger.warning(
            "No ImageNet weights for the encoder %s (%s). TRAINING STARTS FROM RANDOM WEIGHTS and will be worse: "
            "give a weights file by encoder_weights=PATH, or put the official file into %s.",
            backbone,
            # the download's own message ends in the remedy that follows here
            first_line(error.__cause__ or error),
            Path(torch.hub.get_dir()) / "checkpoints",
        )
        encoder = make(pretrained=False)
        encoder.weights_source = "random"
    return encoder


def download_weights(url: str) -> Path:
    """The cached file of ``url``, downloaded through torch.hub first where missing, checked by the hash in its name."""
    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        expected = target.stem.rsplit("-", 1)[-1]
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_S)
        try:
            torch.hub.download_url_to_file(url, str(target), hash_prefix=expected)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            remedy = f"give a weights file by encoder_weights=PATH, or put the official file into {target.parent}"
            raise OSError(errno.EIO, f"cannot download the ImageNet weights ({error}); {remedy}", url) from error
        finally:
            socket.setdefaulttimeout(before)
    return target


def load_encoder_weights(encoder: nn.Module, path: str | Path) -> None:
    """Load a state dict into ``encoder``; parts a classifier adds behind its last block are left out.

    Raises:
        InputError: where the file cannot be read as weights, or its keys or shapes differ.
    """
    weights = read_state_dict(path)
    own = encoder.state_dict()
    classifier = ("classifier.", "features.18.")
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(classifier)}
    check_fit(own, weights, path)
    encoder.load_state_dict(weights, strict=True)


def read_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in ``path``, read with ``weights_only=True``.

    Raises:
        InputError: where there is no file, or it holds anything but tensors by name.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such weights file; give the path of a .pth or .pt file.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no common base for what a broken file raises
        raise InputError(
            f"{path}: not a readable file of plain PyTorch weights ({first_line(error)}); export it again."
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise InputError(f"{path}: holds no state dict (tensors by name); save network.state_dict() alone.")
    return content


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
