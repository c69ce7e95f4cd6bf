"""Ignite handlers that MONAI does not have."""

from .checkpoint import TrainingCheckpoint, WeightsLoader
from .per_class import PerClassMetric
from .progress import Progress
from .regions import RegionMaps
from .run_record import RunRecord
from .seed import EpochSeed

__all__ = ["EpochSeed", "PerClassMetric", "Progress", "RegionMaps", "RunRecord", "TrainingCheckpoint", "WeightsLoader"]
