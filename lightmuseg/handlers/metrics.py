"""The package's metrics as Ignite handlers."""

from __future__ import annotations

from collections.abc import Callable

from monai.handlers import IgniteMetricHandler
from monai.utils import MetricReduction

from lightmuseg.metrics import EnhancedAlignmentMeasure, MeanAbsoluteError, StructureMeasure, WeightedFMeasure


class StructureMeasureHandler(IgniteMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.StructureMeasure` over an engine's run.

    Args:
        alpha, ignore_index, reduction: as of the metric.
        output_transform: makes (probabilities, masks) of the engine's output, both [B, C, H, W] or lists of [C, H, W].
        save_details: keep every image's value in ``engine.state.metric_details``, [images, C].
    """

    def __init__(
        self,
        alpha: float = 0.5,
        ignore_index: int = 255,
        reduction: MetricReduction | str = "mean",
        output_transform: Callable = lambda x: x,
        save_details: bool = True,
    ) -> None:
        metric = StructureMeasure(alpha=alpha, ignore_index=ignore_index, reduction=reduction)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


class EnhancedAlignmentMeasureHandler(IgniteMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.EnhancedAlignmentMeasure` over an engine's run.

    Args:
        ignore_index, reduction: as of the metric.
        output_transform: makes (probabilities, masks) of the engine's output, both [B, C, H, W] or lists of [C, H, W].
        save_details: keep every image's value in ``engine.state.metric_details``, [images, C].
    """

    def __init__(
        self,
        ignore_index: int = 255,
        reduction: MetricReduction | str = "mean",
        output_transform: Callable = lambda x: x,
        save_details: bool = True,
    ) -> None:
        metric = EnhancedAlignmentMeasure(ignore_index=ignore_index, reduction=reduction)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


class WeightedFMeasureHandler(IgniteMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.WeightedFMeasure` over an engine's run.

    Args:
        beta2, ignore_index, reduction: as of the metric.
        output_transform: makes (probabilities, masks) of the engine's output, both [B, C, H, W] or lists of [C, H, W].
        save_details: keep every image's value in ``engine.state.metric_details``, [images, C].
    """

    def __init__(
        self,
        beta2: float = 1.0,
        ignore_index: int = 255,
        reduction: MetricReduction | str = "mean",
        output_transform: Callable = lambda x: x,
        save_details: bool = True,
    ) -> None:
        metric = WeightedFMeasure(beta2=beta2, ignore_index=ignore_index, reduction=reduction)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)


class MeanAbsoluteErrorHandler(IgniteMetricHandler):
    """Compute :py:class:`lightmuseg.metrics.MeanAbsoluteError` over an engine's run.

    Args:
        ignore_index, reduction: as of the metric.
        output_transform: makes (probabilities, masks) of the engine's output, both [B, C, H, W] or lists of [C, H, W].
        save_details: keep every image's value in ``engine.state.metric_details``, [images, C].
    """

    def __init__(
        self,
        ignore_index: int = 255,
        reduction: MetricReduction | str = "mean",
        output_transform: Callable = lambda x: x,
        save_details: bool = True,
    ) -> None:
        metric = MeanAbsoluteError(ignore_index=ignore_index, reduction=reduction)
        super().__init__(metric_fn=metric, output_transform=output_transform, save_details=save_details)
