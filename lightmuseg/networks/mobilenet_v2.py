"""MobileNetV2 as an encoder of five feature maps."""

from __future__ import annotations

import torch
from monai.networks.nets.flexible_unet import FLEXUNET_BACKBONE
from torch import nn

from .encoder import RegisteredEncoder
from .weights import download_weights, load_published

# (expansion, channels, repeats, first stride): Table 2 of the MobileNetV2 paper, without its last 1x1 convolution.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class ConvNormActivation(nn.Sequential):
    """Convolution, batch norm and ReLU6; ``[B, in, H, W]`` to ``[B, out, H / stride, W / stride]``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Expand by a 1x1, filter each channel by a 3x3, project by a 1x1; added to the input where the shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(ConvNormActivation(in_channels, hidden, kernel_size=1))
        layers += [
            ConvNormActivation(hidden, hidden, kernel_size=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2Encoder(nn.Module, RegisteredEncoder):
    """MobileNetV2 1.0 without its last 1x1 convolution, registered in MONAI's ``FLEXUNET_BACKBONE`` as "mobilenet_v2".

    Parameter names are torchvision's (``features.0.0.weight``, ...), so that its weight files load. Arguments and
    errors are those of :class:`.RegisteredEncoder`.

    Reference:
        Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
    """

    backbone = "mobilenet_v2"
    imagenet_url = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
    channels = (16, 24, 32, 96, 320)

    def __init__(self, spatial_dims: int = 2, in_channels: int = 3, pretrained: bool = False) -> None:
        super().__init__()
        self.check_arguments(spatial_dims, in_channels, pretrained)
        blocks: list[nn.Module] = [ConvNormActivation(in_channels, 32, kernel_size=3, stride=2)]
        last_of_stride: list[int] = []
        channels = 32
        for expansion, out_channels, repeats, first_stride in STAGES:
            if first_stride == 2:
                last_of_stride.append(len(blocks) - 1)
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                blocks.append(InvertedResidual(channels, out_channels, stride, expansion))
                channels = out_channels
        self.features = nn.Sequential(*blocks)
        self.outputs = [*last_of_stride, len(blocks) - 1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if pretrained:
            load_published(self, download_weights(self.imagenet_url))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Five maps of ``x`` [B, C, H, W], with 16, 24, 32, 96 and 320 channels at strides 2, 4, 8, 16 and 32."""
        maps: list[torch.Tensor] = []
        for index, block in enumerate(self.features):
            x = block(x)
            if index in self.outputs:
                maps.append(x)
        return maps

    @staticmethod
    def from_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Torchvision's weights without its last 1x1 convolution and its classifier."""
        return {key: value for key, value in weights.items() if not key.startswith(("features.18.", "classifier."))}


FLEXUNET_BACKBONE.register_class(MobileNetV2Encoder)
