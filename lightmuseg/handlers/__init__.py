"""Ignite handlers that MONAI does not have."""

from .checkpoint import TrainingCheckpoint, WeightsLoader
from .metrics import (
    EnhancedAlignmentMeasureHandler,
    MeanAbsoluteErrorHandler,
    StructureMeasureHandler,
    WeightedFMeasureHandler,
)
from .per_class import PerClassMetric
from .processes import SharedBuffers, report_faults_once, synchronised
from .progress import Progress
from .regions import RegionMaps
from .run_record import RunRecord
from .sane import FiniteLoss, require_trainable
from .seed import EpochSeed

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
