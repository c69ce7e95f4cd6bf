"""JPEG checked strictly: Pillow and most libraries show what is left of a damaged one without a word."""

from __future__ import annotations

import simplejpeg

_CHANNELS = {"Gray": 1, "CMYK": 4, "YCCK": 4}


def strict_jpeg_fault(data: bytes, width: int, height: int, channels: int | None = None) -> str | None:
    """Why ``data`` is no whole JPEG of that size; None where libjpeg-turbo decodes it without a warning.

    Only its bits are decoded, not its pixels, for half the time of a picture.

    Args:
        data: from its first byte; what follows its end does not count.
        width, height: that it must have, in pixels.
        channels: that it must have; None for any number.
    """
    try:
        tall, wide, space, _ = simplejpeg.decode_jpeg_header(data)
        if (wide, tall) != (width, height):
            return "its size is another one than the file says"
        if channels not in (None, _CHANNELS.get(space, 3)):
            return "it has another number of channels than the file says"
        # nothing smaller than an eighth is asked for: one pixel of each block, of brightness alone
        space = "CMYK" if _CHANNELS.get(space) == 4 else "GRAY"
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:
        # less the name of the function
        return str(error).rpartition("(): ")[2]
    return None


def with_tables(data: bytes, tables: bytes | None) -> bytes:
    """A JPEG of its own, of a tile and of the tables that the file holds once for all tiles."""
    return data[:2] + tables[2 : tables.rfind(b"\xff\xd9")] + data[2:] if tables else data
