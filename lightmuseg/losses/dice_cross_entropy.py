"""Dice plus cross-entropy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn

from lightmuseg.classes import IGNORED


class DiceCrossEntropyLoss(nn.Module):
    """MONAI's Dice loss over softmax probabilities plus cross-entropy, without the pixels that are not annotated.

    A pixel of which only is known that it is not class i counts in that class alone: in its Dice as a pixel without
    it, and in the mean cross-entropy with -log(1 - p_i). MONAI's own ``DiceCELoss`` cannot leave pixels out.

    Args:
        ignore_index: pixels of the target with this value count in nothing; ``ignore_index`` - i means "not class i".

    Example:
        >>> loss = DiceCrossEntropyLoss()
        >>> logits, target = torch.zeros(1, 5, 4, 4), torch.full((1, 1, 4, 4), 255.0)
        >>> loss(logits, target).item()
        0.0
    """

    def __init__(self, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.dice = DiceLoss()

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, a scalar.

        Args:
            logits: [B, C, H, W]; of one channel the sigmoid is the probability of class 1, else the softmax is of each.
            target: [B, 1, H, W], class indices, ``ignore_index``, and ``ignore_index`` - i for "not class i".

        Raises:
            ValueError: where the shapes do not match.
        """
        if target.shape != (logits.shape[0], 1, *logits.shape[2:]):
            raise ValueError(f"logits {tuple(logits.shape)} [B, C, H, W] need a target [B, 1, H, W].")
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if logits.shape[1] == 1:
            # sigmoid(x) is the second of softmax(0, x)
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        classes = torch.arange(logits.shape[1], device=logits.device).reshape(1, -1, 1, 1)
        truth, denied = target == classes, target == self.ignore_index - classes
        # of index 0 that means "ignored"
        denied[:, 0] = False
        annotated = truth.any(dim=1, keepdim=True)
        dice = self.dice(logits.softmax(dim=1) * (annotated | denied), truth.to(logits.dtype))

        indices = target.masked_fill(~annotated, self.ignore_index)[:, 0].long()
        cross_entropy = F.cross_entropy(logits, indices, ignore_index=self.ignore_index, reduction="sum")
        # log(1 - p_i), which is 0 where nothing is denied
        log_others = logits.masked_fill(denied, -torch.inf).logsumexp(dim=1) - logits.logsumexp(dim=1)
        # a mean over no pixels would be NaN
        known = (annotated | denied).any(dim=1).sum().clamp(min=1)
        return dice + (cross_entropy - log_others.sum()) / known
