"""One metric of several classes as several numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.handlers import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric


class PerClassMetric(IgniteMetricHandler):
    """A MONAI metric of several classes: each class's mean over images, and the mean of these under the metric's name.

    With the name ``val_iou`` the engine gets ``val_iou``, ``val_iou_tumor``, ``val_iou_stroma`` and so on; with one
    class ``val_iou`` alone. What has no value (NaN: nothing to score) is left out of the means.

    Args:
        metric_fn: with ``reduction="none"``, one value an image and class, or "sum_batch", one a class.
        class_names: of the metric's channels.
        options: ``output_transform`` and ``save_details`` of MONAI's handler.
    """

    def __init__(self, metric_fn: CumulativeIterationMetric, class_names: Sequence[str], **options: Any) -> None:
        super().__init__(metric_fn, **options)
        self.class_names = tuple(class_names)

    def compute(self) -> Any:
        """The mean over classes; each class's own number goes into the engine's metrics."""
        values = torch.as_tensor(super().compute()).reshape(-1, len(self.class_names)).nanmean(dim=0)
        if len(values) > 1:
            named = {f"{self._name}_{name}": value.item() for name, value in zip(self.class_names, values)}
            self._engine.state.metrics.update(named)
        return values.nanmean().item()
