"""Ignite handlers that MONAI does not have."""

from .checkpoint import TrainingCheckpoint, WeightsLoader
from .progress import Progress
from .run_record import RunRecord
from .seed import EpochSeed

__all__ = ["EpochSeed", "Progress", "RunRecord", "TrainingCheckpoint", "WeightsLoader"]
