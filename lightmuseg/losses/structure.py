"""Structure loss of binary segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lightmuseg.classes import IGNORED


class StructureLoss(nn.Module):
    """Weighted binary cross-entropy plus weighted IoU loss; pixels near region borders weigh up to six times.

    The weight of a pixel is ``1 + 5 * abs(mean of the mask in the 31x31 window around it - mask)``, where the window
    counts pixels outside the image, and ignored ones, as background.

    Args:
        window: odd side of that window, in pixels.
        border_weight: the factor 5; 0 gives the unweighted form that the paper prints.
        ignore_index: pixels of the target with this value count in nothing.

    Reference:
        Equations 11 to 13 of the LightMuSeg paper, which prints them unweighted but names the weighted form of
        Fan et al., PraNet, MICCAI 2020.
    """

    def __init__(self, window: int = 31, border_weight: float = 5.0, ignore_index: int = IGNORED) -> None:
        super().__init__()
        if window < 1 or window % 2 == 0:
            raise ValueError(f"window={window} must be an odd number of pixels.")
        self.window = window
        self.border_weight = border_weight
        self.ignore_index = ignore_index

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The mean loss of a batch, a scalar.

        Args:
            logits: [B, C, H, W], one binary map a channel.
            target: [B, C, H, W] of 0, 1 and ``ignore_index``.

        Raises:
            ValueError: where the shapes differ.
        """
        if logits.shape != target.shape:
            raise ValueError(f"logits {tuple(logits.shape)} and target {tuple(target.shape)} must have one shape.")
        ignored = target == self.ignore_index
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        logits = logits.masked_fill(ignored, 0.0)
        valid = (~ignored).to(logits.dtype)
        mask = (target == 1).to(logits.dtype)
        weight = valid * (1 + self.border_weight * (self._neighbourhood(target == 1) - mask).abs())

        cross_entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none")
        total = weight.sum(dim=(2, 3))
        weighted_bce = (weight * cross_entropy).sum(dim=(2, 3)) / total.clamp(min=1)

        probability = logits.sigmoid()
        intersection = (weight * probability * mask).sum(dim=(2, 3))
        union = (weight * (probability + mask)).sum(dim=(2, 3)) - intersection
        weighted_iou = 1 - (intersection + 1) / (union + 1)
        return (weighted_bce + weighted_iou).mean()

    def _neighbourhood(self, mask: torch.Tensor) -> torch.Tensor:
        """The share of ones in the window around each pixel, from sums along rows and columns: exact, at any window."""
        half = self.window // 2
        counts = F.pad(mask.int(), 2 * (half + 1, half))
        for axis in (2, 3):
            sums, length = counts.cumsum(axis, dtype=torch.int32), mask.shape[axis]
            counts = sums.narrow(axis, self.window, length) - sums.narrow(axis, 0, length)
        return counts / self.window**2
