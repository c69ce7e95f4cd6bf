"""A result as a small picture in the list, made of its overlay.png."""

from __future__ import annotations

import io
import math

from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.outputs.overlay import OVERLAY_SIDE

from .result_list import Result

SIDE = 192
JPEG_QUALITY = 80
# Of a picture that a result can have.
MAX_PIXELS = 4 * OVERLAY_SIDE**2


def thumbnail_of(result: Result) -> bytes:
    """JPEG of the slide under its map, without the legend, at most SIDE pixels wide and high."""
    path = result.file("overlay.png")
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise InputError(f"{path}: is larger than an overlay is.")
            # the legend is below the picture, and where the slide is narrow it is wider
            factor = max(1.0, max(result.level0_size) / OVERLAY_SIDE)
            width, height = (math.ceil(side / factor - 1e-6) for side in result.level0_size)
            small = picture.convert("RGB").crop((0, 0, min(width, picture.width), min(height, picture.height)))
            small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read; segment the slide again.") from error
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()
