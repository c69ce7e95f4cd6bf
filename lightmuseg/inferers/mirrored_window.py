"""MONAI's sliding window with the picture mirrored around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SlidingWindowInferer
from monai.utils import ensure_tuple_rep

from lightmuseg.wsi.mirroring import MARGIN, mirrored, mirrored_span


class MirroredWindowInferer(SlidingWindowInferer):
    """A sliding window over a picture of any size and the same margin of mirrored pixels that slides get.

    MONAI's own ``padding_mode="reflect"`` pads no picture as large as a window, and fails for one that is much smaller.

    Args:
        args, kwargs: those of MONAI's inferer; ``roi_size`` is of whole numbers.
        margin: of mirrored pixels at each side; see :func:`.mirrored_span`.

    Example:
        >>> inferer = MirroredWindowInferer((32, 32), margin=8)
        >>> inferer(torch.arange(3.0).expand(1, 1, 5, 3), torch.nn.Identity())[0, 0, 0]
        tensor([0., 1., 2.])
    """

    def __init__(self, *args: Any, margin: int = MARGIN, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.margin = margin

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """``network``'s logits [B, C, H, W] of ``inputs`` [B, 3, H, W]."""
        height, width = inputs.shape[2:]
        sides = ensure_tuple_rep(self.roi_size, 2)
        spans = [mirrored_span(size, side, self.margin) for size, side in zip((height, width), sides)]
        for axis, (start, length) in enumerate(spans, start=2):
            places = torch.from_numpy(mirrored(start, length, inputs.shape[axis]))
            inputs = inputs.index_select(axis, places.to(inputs.device))
        logits = super().__call__(inputs, network, *args, **kwargs)
        upper, left = -spans[0][0], -spans[1][0]
        return logits[:, :, upper : upper + height, left : left + width]
