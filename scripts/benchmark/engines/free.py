"""A network that costs nothing, so that everything else is seen."""

from __future__ import annotations

import torch


class Free(torch.nn.Module):
    """Logits of squares of 32 pixels, by their first pixel's green."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] to [B, 1, H / 2, W / 2]."""
        return torch.nn.functional.interpolate(-x[:, 1:2, ::32, ::32], scale_factor=16)
