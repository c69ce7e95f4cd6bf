"""A network that takes tiles as slides give them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class NormalisedNetwork(nn.Module):
    """Scale tiles to [0, 1], normalise each channel, and apply a network.

    Every runtime runs this one module, so that none can normalise differently.

    Args:
        network: takes [B, 3, H, W].
        mean, std: of each channel after scaling to [0, 1]; by default ImageNet's.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        super().__init__()
        self.network = network
        # uint8 * factor + offset = (uint8 / 255 - mean) / std
        self.register_buffer("factor", (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("offset", (-torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1), persistent=False)

    def normalised(self, tiles: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] as the network takes them: float [B, 3, H, W]."""
        # NHWC in memory is what PyTorch calls channels-last
        return torch.addcmul(self.offset, tiles.permute(0, 3, 1, 2).float(), self.factor)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] to logits [B, C, h, w]."""
        logits: torch.Tensor = self.network(self.normalised(tiles))
        return logits
