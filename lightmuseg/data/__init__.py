"""From annotated regions to tiles, and from tiles to training samples."""

from importlib import import_module
from typing import Any

# Imported when they are asked for: who only reads a file need not wait seconds for MONAI and PyTorch.
_MODULES = {
    "ClassMapsd": "transforms",
    "CodesToClassesd": "transforms",
    "LabelMapWriter": "writers",
    "RandSimilarityd": "augment",
    "as_codes": "images",
    "as_rgb": "images",
    "list_images": "folder",
    "load_tiles": "manifest",
    "manifest_hash": "manifest",
    "output_ending": "folder",
    "warn_of_absent_classes": "manifest",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
