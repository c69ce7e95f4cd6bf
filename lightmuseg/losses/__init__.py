"""Losses of the paper."""

from .deep_supervision import DeepSupervisionLoss
from .dice_cross_entropy import DiceCrossEntropyLoss
from .structure import StructureLoss

__all__ = ["DeepSupervisionLoss", "DiceCrossEntropyLoss", "StructureLoss"]
