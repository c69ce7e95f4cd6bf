"""Mean absolute error of probabilities."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric, do_metric_reduction
from monai.utils import MetricReduction


class MeanAbsoluteError(CumulativeIterationMetric):
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

    def __init__(self, ignore_index: int = 255, reduction: MetricReduction | str = "mean") -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.reduction = reduction

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **_: object) -> torch.Tensor:
        """One error an image and channel, [B, C], NaN where nothing is annotated.

        Args:
            y_pred: probabilities [B, C, H, W].
            y: masks [B, C, H, W] of 0, 1 and ``ignore_index``.
        """
        if y is None or y_pred.shape != y.shape:
            raise ValueError(f"y_pred {tuple(y_pred.shape)} needs a y of the same shape.")
        valid = y != self.ignore_index
        error = ((y_pred.float() - y.float()).abs() * valid).sum(dim=(2, 3))
        return error / valid.sum(dim=(2, 3))

    def aggregate(self, reduction: MetricReduction | str | None = None) -> torch.Tensor:
        """The error over all images so far, reduced; images without annotation are left out."""
        data = self.get_buffer()
        if not isinstance(data, torch.Tensor):
            raise ValueError("No images yet: call the metric before aggregate().")
        return do_metric_reduction(data, reduction or self.reduction)[0]
