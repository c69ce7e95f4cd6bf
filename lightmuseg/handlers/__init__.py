"""Ignite handlers that MONAI does not have."""

from .checkpoint import TrainingCheckpoint, WeightsLoader
from .metric_handlers import (
    EnhancedAlignmentMeasureHandler,
    MeanAbsoluteErrorHandler,
    StructureMeasureHandler,
    WeightedFMeasureHandler,
)
from .per_class import PerClassMetric
from .processes import SharedBuffers, report_faults_once, synchronised
from .region_maps import RegionMaps
from .run_record import RunRecord
from .sane import FiniteLoss, require_trainable
from .seed import EpochSeed
from .training_progress import Progress

__all__ = [
    "EnhancedAlignmentMeasureHandler",
    "EpochSeed",
    "FiniteLoss",
    "MeanAbsoluteErrorHandler",
    "PerClassMetric",
    "Progress",
    "RegionMaps",
    "RunRecord",
    "SharedBuffers",
    "StructureMeasureHandler",
    "TrainingCheckpoint",
    "WeightedFMeasureHandler",
    "WeightsLoader",
    "report_faults_once",
    "require_trainable",
    "synchronised",
]
