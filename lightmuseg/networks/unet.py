"""The U-Nets that the paper compares with."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import nn

from lightmuseg.errors import InputError, first_line

from .encoder_weights import start_encoder
from .torchvision_operators import declare_missing_operators
from .weights import check_fit, read_state_dict

# The paper's names (its section on Table 1) and those of segmentation-models-pytorch.
BASELINES = {
    "ResNet34": "resnet34",
    "ResNeXt50": "resnext50_32x4d",
    "ResNeSt50": "timm-resnest50d",
    "Res2Net50": "timm-res2net50_26w_4s",
    "VGG19": "vgg19",
    "EfficientNet-B5": "efficientnet-b5",
    "MobileNet-V3-L": "timm-mobilenetv3_large_100",
    "MobileOne-S3": "mobileone_s3",
    "MobileNet-V2": "mobilenet_v2",
}
HUB_TIMEOUT_S = 10.0
# What published classifiers have behind the last block that feeds a feature map.
CLASSIFIERS = ("fc.", "_fc.", "classifier.", "linear.", "conv_head.")


class UNet(nn.Module):
    """U-Net of segmentation-models-pytorch with one of the paper's nine encoders.

    Args:
        in_channels: channels of the image.
        out_channels: classes; 1 for a binary map.
        backbone: one of the names in ``BASELINES``' values.
        encoder_weights: "imagenet", "auto", a path or None, as for
            :func:`~lightmuseg.networks.encoder_weights.build_encoder`; the official weights come from the Hugging
            Face hub and stay in its cache.

    Raises:
        InputError: for another backbone, without segmentation-models-pytorch, or for weights that do not fit.
        OSError: for "imagenet" where the weights are neither cached nor can be downloaded.

    Reference:
        Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015.
        Iakubovskii, Segmentation Models PyTorch, https://github.com/qubvel-org/segmentation_models.pytorch.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 1,
        backbone: str = "resnet34",
        encoder_weights: str | None = "auto",
    ) -> None:
        super().__init__()
        if in_channels < 1 or out_channels < 1:
            raise ValueError(f"in_channels={in_channels} and out_channels={out_channels} must be at least 1.")
        if backbone not in BASELINES.values():
            raise InputError(f"backbone={backbone!r} is no baseline; one of {', '.join(BASELINES.values())}.")
        library = _segmentation_models()
        network = library.Unet(backbone, encoder_weights=None, in_channels=in_channels, classes=out_channels)

        def make(pretrained: bool) -> nn.Module:
            return _imagenet_encoder(library, backbone, in_channels) if pretrained else network.encoder

        def load(encoder: nn.Module, path: str) -> None:
            _load_published(encoder, read_state_dict(path), path)

        self.encoder = start_encoder(backbone, encoder_weights, make, load, _remedy())
        for unused in ("_conv_head", "_bn1"):
            # EfficientNet's; distributed training waits for the gradient of every parameter that takes one
            if hasattr(self.encoder, unused):
                getattr(self.encoder, unused).requires_grad_(False)
        # what a model's card says of it
        self.arguments = {"backbone": backbone}
        self.decoder = network.decoder
        self.segmentation_head = network.segmentation_head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, out_channels, H, W] of ``x`` [B, in_channels, H, W], prepared as for LightMuSeg.

        Raises:
            ValueError: for a height or width that is no multiple of 32.
        """
        if x.shape[-2] % 32 != 0 or x.shape[-1] % 32 != 0:
            raise ValueError(f"Height and width must be multiples of 32, got {x.shape[-2]} x {x.shape[-1]} pixels.")
        return self.segmentation_head(self.decoder(self.encoder(x)))


def _segmentation_models() -> ModuleType:
    declare_missing_operators()
    try:
        import segmentation_models_pytorch
    except ModuleNotFoundError as error:
        raise InputError(f"The U-Net baselines need {error.name}: pip install 'lightmuseg[baselines]'.") from error
    return segmentation_models_pytorch


def _imagenet_encoder(library: ModuleType, backbone: str, in_channels: int) -> nn.Module:
    """The encoder with the weights of the Hugging Face hub, from its cache where they are there."""
    from safetensors.torch import load_file

    encoder = library.encoders.get_encoder(backbone, in_channels=3, weights=None)
    if backbone.startswith("timm-"):
        repository, revision = encoder.model.pretrained_cfg["hf_hub_id"], None
    else:
        settings = library.encoders.encoders[backbone]["pretrained_settings"]["imagenet"]
        repository, revision = settings["repo_id"], settings["revision"]
    path = _from_hub(repository, revision, backbone)
    _load_published(encoder, load_file(path), path)
    if hasattr(encoder, "set_in_channels"):
        encoder.set_in_channels(in_channels, pretrained=True)
    elif in_channels != 3:
        library.encoders._utils.patch_first_conv(encoder, in_channels)
    return encoder


def _from_hub(repository: str, revision: str | None, backbone: str) -> str:
    from huggingface_hub import constants, get_session, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = {"repo_id": repository, "filename": "model.safetensors", "revision": revision}
    try:
        return hf_hub_download(**wanted, local_files_only=True)
    except LocalEntryNotFoundError:
        pass
    try:
        # where the hub does not answer, it is asked once; a download would repeat each request for half a minute
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
        return hf_hub_download(**wanted)
    except Exception as error:  # the hub's HTTP library, and so its errors, are another from version to version
        message = f"cannot download the ImageNet weights ({first_line(error)}); {_remedy()}"
        raise OSError(errno.EIO, message, backbone) from error


def _remedy() -> str:
    from huggingface_hub import constants

    return f"give a weights file by encoder_weights=PATH, or fill {constants.HF_HUB_CACHE} where there is a connection"


def _load_published(encoder: nn.Module, weights: Mapping[str, torch.Tensor], path: str) -> None:
    """Load the encoder's own weights, or a classifier's published ones: their names lack the prefix of timm's."""
    own = encoder.state_dict()
    prefix = "model." if all(key.startswith("model.") for key in own) else ""
    given = {key if key in own else prefix + key: value for key, value in weights.items()}
    classifier = tuple(prefix + name for name in CLASSIFIERS)
    given = {key: value for key, value in given.items() if key in own or not key.startswith(classifier)}
    check_fit(own, given, path)
    encoder.load_state_dict(given)
