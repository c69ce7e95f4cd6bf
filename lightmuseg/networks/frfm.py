"""Feature Refinement and Fusion Module."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Act, Pool
from torch import nn


class FRFM(nn.Module):
    """Feature Refinement and Fusion Module: joins the up-sampled and the skip features under one channel attention.

    Args:
        channels: C, of both inputs and of the output.
        reduction: of the channel attention, which has C / reduction hidden channels.

    Reference:
        Section 2.2 and Fig. 1B of the LightMuSeg paper (its equation 10 prints a sum where the text says
        average pooling; the average is used).
    """

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.pool = Pool["adaptiveavg", 2](1)
        self.attention = nn.Sequential(
            nn.Linear(channels, channels // reduction, bias=False),
            Act["relu"](inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            Act["sigmoid"](),
        )
        self.fuse = Convolution(2, 2 * channels, channels, kernel_size=1, bias=False, conv_only=True)

    def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
        """``x1``, ``x2`` and result: [B, C, H, W]."""
        weights = self.attention(self.pool(x1 + x2).flatten(1))[:, :, None, None]
        return self.fuse(torch.cat([x1 * weights, x2 * weights], dim=1))
