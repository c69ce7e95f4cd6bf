"""Dice plus cross-entropy of multi-class segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn

from lightmuseg.classes import IGNORED


class DiceCrossEntropyLoss(nn.Module):
    """MONAI's Dice loss over softmax probabilities plus cross-entropy, without the pixels that are not annotated.

    MONAI's own ``DiceCELoss`` cannot leave pixels out.

    Args:
        ignore_index: pixels of the target with this value count in nothing.

    Example:
        >>> loss = DiceCrossEntropyLoss()
        >>> logits, target = torch.zeros(1, 5, 4, 4), torch.full((1, 1, 4, 4), 255.0)
        >>> loss(logits, target).item()
        0.0
    """

    def __init__(self, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, ignore_index=ignore_index)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, a scalar.

        Args:
            logits: [B, C, H, W], C at least 2.
            target: class indices [B, 1, H, W], and ``ignore_index``.

        Raises:
            ValueError: where the shapes do not match.
        """
        if logits.shape[1] < 2 or target.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise ValueError(f"logits {tuple(logits.shape)} [B, C, H, W] need a target [B, 1, H, W] and C > 1.")
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        indices = target[:, 0].long()
        # a mean over no pixels would be NaN
        annotated = (indices != self.ignore_index).sum().clamp(min=1)
        cross_entropy = F.cross_entropy(logits, indices, ignore_index=self.ignore_index, reduction="sum") / annotated
        return self.dice(logits, target) + cross_entropy
