"""Ignite handlers that MONAI does not have."""

from .checkpoint import TrainingCheckpoint, WeightsLoader
from .learning_rate import CosineSchedule
from .per_class import PerClassMetric
from .processes import SharedBuffers, report_faults_once, synchronised
from .region_maps import RegionMaps
from .run_record import RunRecord
from .seed import EpochSeed
from .trainable import FiniteLoss, require_trainable
from .training_progress import Progress
from .weight_average import WeightAverage

__all__ = [
    "CosineSchedule",
    "EpochSeed",
    "FiniteLoss",
    "PerClassMetric",
    "Progress",
    "RegionMaps",
    "RunRecord",
    "SharedBuffers",
    "TrainingCheckpoint",
    "WeightAverage",
    "WeightsLoader",
    "report_faults_once",
    "require_trainable",
    "synchronised",
]
