"""Mean absolute error of probabilities."""

from __future__ import annotations

import torch

from .image_metric import ImageMetric


class MeanAbsoluteError(ImageMetric):
    """Mean over an image's annotated pixels of ``abs(probability - mask)``.

    MONAI's ``MAEMetric`` counts every pixel; this one leaves out those without annotation.

    Args:
        ignore_index: pixels of ``y`` with this value count in nothing; an image of nothing else is left out.
        reduction: over images and channels, as in MONAI's metrics.

    Example:
        >>> metric = MeanAbsoluteError()
        >>> _ = metric(torch.tensor([[[[0.25, 0.5]]]]), torch.tensor([[[[0.0, 255.0]]]]))
        >>> metric.aggregate().item()
        0.25
    """

    def _sums(self, probability: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Errors and pixels, [N, 2]."""
        errors = (probability - truth).abs_().mul_(valid)
        return torch.stack([errors.sum(dim=(1, 2)), valid.sum(dim=(1, 2))], dim=1)

    def _score(self, sums: torch.Tensor) -> torch.Tensor:
        return sums[:, 0] / sums[:, 1]
