"""From annotated regions to tiles, and from tiles to training samples."""

from .augment import RandSimilarityd
from .folder import list_images, output_ending
from .images import as_codes, as_rgb
from .manifest import load_tiles, manifest_hash
from .transforms import ClassMapsd, CodesToClassesd
from .writers import LabelMapWriter

__all__ = [
    "ClassMapsd",
    "CodesToClassesd",
    "LabelMapWriter",
    "RandSimilarityd",
    "as_codes",
    "as_rgb",
    "list_images",
    "load_tiles",
    "manifest_hash",
    "output_ending",
]
