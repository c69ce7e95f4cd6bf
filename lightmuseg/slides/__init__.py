"""Whole slides in, maps out."""

from importlib import import_module
from typing import Any

# Imported when they are asked for: who only reads slides need not wait seconds for MONAI and PyTorch.
_MODULES = {"Options": "options", "SlideSegmenter": "segmenter"}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
