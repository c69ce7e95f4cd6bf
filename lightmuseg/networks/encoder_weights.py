"""Encoders by name, and the weights they start from."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from lightmuseg.errors import first_line
from lightmuseg.provenance import sha256_of

from .weights import download_remedy, load_published

logger = logging.getLogger(__name__)


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

    return start_encoder(backbone, weights, make=make, load=load_published, remedy=download_remedy())


def start_encoder(
    backbone: str,
    weights: str | None,
    make: Callable[[bool], nn.Module],
    load: Callable[[nn.Module, str], None],
    remedy: str,
) -> nn.Module:
    """The encoder that ``make`` gives, started from ``weights`` as :func:`build_encoder` says.

    ``make(True)`` gives it with ImageNet weights, ``load`` loads a file into it; ``backbone`` and ``remedy`` are for
    the warning of "auto".
    """
    if weights in ("imagenet", "auto"):
        try:
            encoder = make(True)
            encoder.weights_source = "ImageNet"
            return encoder
        except (OSError, RuntimeError, ValueError) as error:
            if weights == "imagenet":
                raise
            # the download's own message ends in the remedy that follows here
            reason = first_line(error.__cause__ or error)
            logger.warning(
                "No ImageNet weights for the encoder %s (%s). TRAINING STARTS FROM RANDOM WEIGHTS and will be worse: "
                "%s.", backbone, reason, remedy,
            )  # fmt: skip
            weights = None
    encoder = make(False)
    encoder.weights_source = "random"
    if weights is not None:
        load(encoder, weights)
        encoder.weights_source = f"{Path(weights).name} sha256:{sha256_of(weights)}"
    return encoder
