"""Multi-Scale Feature Fusion Module."""

from __future__ import annotations

import torch
from monai.networks.blocks import ChannelSELayer, Convolution
from monai.networks.layers.factories import Act
from torch import nn


class SpatialAttention(nn.Module):
    """Weigh each pixel by its channel mean and maximum: ``x * sigmoid(conv7x7([mean, max]))``.

    Args:
        kernel_size: odd side of the convolution, in pixels.

    Reference:
        Equations 4 to 8 of the LightMuSeg paper (its equation 4 prints a sum where the text says average;
        the average is used), after Woo et al., CBAM, ECCV 2018.
    """

    def __init__(self, kernel_size: int = 7) -> None:
        super().__init__()
        self.conv = Convolution(2, in_channels=2, out_channels=1, kernel_size=kernel_size, bias=False, conv_only=True)
        self.sigmoid = Act["sigmoid"]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` and result: [B, C, H, W]."""
        statistics = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.sigmoid(self.conv(statistics))


class MSFFM(nn.Module):
    """Multi-Scale Feature Fusion Module: three receptive fields, fused, then channel and spatial attention.

    Args:
        channels: C, of input and output.
        kernel_sizes: odd sides of the parallel convolutions, in pixels.
        reduction: of the channel attention, which has C / reduction hidden channels.

    Reference:
        Equations 1 to 9 and Fig. 2 of the LightMuSeg paper.
    """

    def __init__(self, channels: int, kernel_sizes: tuple[int, ...] = (1, 3, 5), reduction: int = 4) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Convolution(2, channels, channels, kernel_size=size, conv_only=True) for size in kernel_sizes
        )
        self.fuse = Convolution(2, len(kernel_sizes) * channels, channels, kernel_size=1, conv_only=True)
        self.channel_attention = ChannelSELayer(2, channels, r=reduction)
        self.spatial_attention = SpatialAttention()
        self.project = Convolution(2, channels, channels, kernel_size=1, conv_only=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` and result: [B, C, H, W]."""
        x = self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))
        return self.project(self.spatial_attention(self.channel_attention(x)))
