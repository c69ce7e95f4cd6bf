"""What runs a network on tiles of a slide."""

from .choice import KINDS, kind_of, make_runtime, obstacle, require_device, require_runtime
from .int8 import int8_folder, require_int8
from .normalised import NormalisedNetwork
from .parity import Parity
from .runtime import Runtime, RuntimeInfo
from .torch import torch_runtime

__all__ = [
    "KINDS",
    "NormalisedNetwork",
    "Parity",
    "Runtime",
    "RuntimeInfo",
    "int8_folder",
    "kind_of",
    "make_runtime",
    "obstacle",
    "require_device",
    "require_int8",
    "require_runtime",
    "torch_runtime",
]
