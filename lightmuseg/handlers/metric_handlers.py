"""The package's metrics as Ignite handlers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai.handlers import IgniteMetricHandler

from lightmuseg.metrics import EnhancedAlignmentMeasure, MeanAbsoluteError, StructureMeasure, WeightedFMeasure
from lightmuseg.metrics.image_metric import ImageMetric


class ImageMetricHandler(IgniteMetricHandler):
    """Compute a metric of one value an image and channel over an engine's run.

    Args:
        output_transform: makes (probabilities, masks) of the engine's output, both [B, C, H, W] or lists of [C, H, W].
        save_details: keep every image's value in ``engine.state.metric_details``, [images, C].
        arguments: of the metric, by name, such as ``reduction="mean_batch"``.
    """

    metric: type[ImageMetric]

    def __init__(
        self, output_transform: Callable = lambda output: output, save_details: bool = True, **arguments: Any
    ) -> None:
        super().__init__(self.metric(**arguments), output_transform=output_transform, save_details=save_details)


class StructureMeasureHandler(ImageMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.StructureMeasure` over an engine's run."""

    metric = StructureMeasure


class EnhancedAlignmentMeasureHandler(ImageMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.EnhancedAlignmentMeasure` over an engine's run."""

    metric = EnhancedAlignmentMeasure


class WeightedFMeasureHandler(ImageMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.WeightedFMeasure` over an engine's run."""

    metric = WeightedFMeasure


class MeanAbsoluteErrorHandler(ImageMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.MeanAbsoluteError` over an engine's run."""

    metric = MeanAbsoluteError
