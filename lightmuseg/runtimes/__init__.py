"""What runs a network on tiles of a slide."""

import sys

from .choice import KINDS, make_runtime, require_device, require_runtime
from .int8 import int8_folder, require_int8
from .normalised import NormalisedNetwork
from .parity import Parity
from .runtime import Runtime
from .torch import TorchRuntime

# OpenVINO and NNCF report their use to their makers where this package is; a laboratory's machine says nothing.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__all__ = [
    "KINDS",
    "NormalisedNetwork",
    "Parity",
    "Runtime",
    "TorchRuntime",
    "int8_folder",
    "make_runtime",
    "require_device",
    "require_int8",
    "require_runtime",
]
