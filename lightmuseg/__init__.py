"""LightMuSeg: light multiscale segmentation of breast-cancer histology.

>>> from lightmuseg import Segmenter
>>> Segmenter().options.class_names
('tumor',)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.3.0"

_MODULES = {
    "Segmenter": "lightmuseg.slides.segmenter",
    "SlideResult": "lightmuseg.slides.result",
    "Model": "lightmuseg.models.model",
    "Options": "lightmuseg.slides.options",
    "InputError": "lightmuseg.errors",
}
__all__ = ["InputError", "Model", "Options", "Segmenter", "SlideResult", "__version__"]


def __getattr__(name: str) -> Any:
    # when it is asked for: PyTorch takes seconds to load
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
