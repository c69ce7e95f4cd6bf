"""Ways to apply a network that MONAI does not have."""

from .autocast import AutocastInferer
from .mirrored_window import MirroredWindowInferer

__all__ = ["AutocastInferer", "MirroredWindowInferer"]
