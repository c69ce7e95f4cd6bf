"""Metrics on [B, C, H, W] maps, as MONAI cumulative metrics."""

from .mean_absolute_error import MeanAbsoluteError

__all__ = ["MeanAbsoluteError"]
