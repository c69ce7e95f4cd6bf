"""One slide from its file to the folder of its results, and many."""

from importlib import import_module
from typing import Any

# imported when they are asked for: who only reads slides need not wait seconds for PyTorch
_MODULES = {"Options": "options", "Segmenter": "segmenter", "segment_slides": "batch"}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
