"""Ways to apply a network that MONAI does not have."""

from .autocast import AutocastInferer

__all__ = ["AutocastInferer"]
