"""EfficientNet-B0 as an encoder of five feature maps."""

from __future__ import annotations

import re

import torch
from monai.networks.nets.efficientnet import EfficientNetEncoder, url_map
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from .encoder import RegisteredEncoder
from .weights import download_weights, load_published

MODEL = "efficientnet-b0"


class EfficientNetB0Encoder(RegisteredEncoder, EfficientNetEncoder):
    """MONAI's EfficientNet-B0 without its classifier, registered in MONAI's ``FLEXUNET_BACKBONE`` as "efficientnet_b0".

    MONAI's own "efficientnet-b0" keeps the classifier's 1.7 million parameters, which nothing uses and distributed
    training stumbles over. Its activation does not go through TorchScript; here it is ``nn.SiLU``, the same function.

    Arguments and errors are those of :class:`.RegisteredEncoder`; the ImageNet weights are the ones that MONAI names.

    Reference:
        Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
    """

    backbone = "efficientnet_b0"
    imagenet_url = url_map[MODEL]
    channels = EfficientNetEncoder.num_channels_per_output()[EfficientNetEncoder.backbone_names.index(MODEL)]

    def __init__(self, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False) -> None:
        self.check_arguments(spatial_dims, in_channels, pretrained)
        super().__init__(MODEL, pretrained=False, spatial_dims=spatial_dims, in_channels=in_channels)
        del self._conv_head, self._bn1, self._fc
        for module in self.modules():
            if hasattr(module, "_swish"):
                module._swish = nn.SiLU()
        if pretrained:
            load_published(self, download_weights(self.imagenet_url))

    def from_published(self, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The published weights without the classifier; their blocks are numbered through, here they are in stages."""
        own_names = {re.sub(r"^_blocks\.\d+\.", "_blocks.", name): name for name in self.state_dict()}
        classifier = ("_conv_head.", "_bn1.", "_fc.")
        return {own_names.get(key, key): value for key, value in weights.items() if not key.startswith(classifier)}


FLEXUNET_BACKBONE.register_class(EfficientNetB0Encoder)
