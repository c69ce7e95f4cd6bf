"""Metrics on [B, C, H, W] maps, as MONAI cumulative metrics."""

from .enhanced_alignment_measure import EnhancedAlignmentMeasure
from .mean_absolute_error import MeanAbsoluteError
from .structure_measure import StructureMeasure
from .weighted_f_measure import WeightedFMeasure

__all__ = ["EnhancedAlignmentMeasure", "MeanAbsoluteError", "StructureMeasure", "WeightedFMeasure"]
