"""The loss of a network with side heads."""

from __future__ import annotations

import torch
from torch import nn


class DeepSupervisionLoss(nn.Module):
    """The sum of a loss over a network's own output and those of its side heads; without side heads the loss itself.

    MONAI's ``DeepSupervisionLoss`` takes a list and weighs; LightMuSeg gives one tensor, and all count alike.

    Args:
        loss: of logits [B, C, H, W] and a target.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss, a scalar.

        Args:
            logits: [B, C, H, W], or [B, outputs, C, H, W] with deep supervision.
            target: of one output.
        """
        if logits.ndim == 4:
            return self.loss(logits, target)
        return torch.stack([self.loss(output, target) for output in logits.unbind(dim=1)]).sum()
