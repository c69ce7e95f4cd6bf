"""Losses of the paper."""

from .structure import StructureLoss

__all__ = ["StructureLoss"]
