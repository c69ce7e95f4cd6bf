"""What runs a network on tiles of a slide."""

from .runtime import Runtime
from .torch import TorchRuntime

__all__ = ["Runtime", "TorchRuntime"]
