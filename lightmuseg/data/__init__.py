"""From annotated regions to tiles, and from tiles to training samples."""

from importlib import import_module
from typing import Any

# Imported on first use: code that only reads a file need not wait seconds for MONAI and PyTorch.
_MODULES = {
    "ClassMapsd": ".transforms",
    "CodesToClassesd": ".transforms",
    "LabelMapWriter": ".label_maps",
    "RandGlassd": ".glass_pasting",
    "RandJpegd": ".compression",
    "RandSimilarityd": ".augment",
    "RandStaind": ".stain",
    "as_codes": "lightmuseg.wsi.images",
    "as_rgb": "lightmuseg.wsi.images",
    "dataset_mpp": ".tile_manifest",
    "dataset_tile_size": ".tile_manifest",
    "list_images": ".image_folder",
    "load_tiles": ".tile_manifest",
    "manifest_hash": ".tile_manifest",
    "output_ending": ".label_maps",
    "tile_sampler": ".patient_sampling",
    "warn_of_absent_classes": ".tile_manifest",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)
