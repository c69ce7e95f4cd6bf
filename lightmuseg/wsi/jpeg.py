"""JPEG checked strictly: Pillow and most libraries show what is left of a damaged one without a word.

It is decoded by libjpeg-turbo that stops where it would warn. That passes over a run of zeros, which can be valid data
and is looked at here. What is not seen is damage that leaves valid data, such as every other changed bit.

Reference: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import simplejpeg

_CHANNELS = {"Gray": 1, "CMYK": 4, "YCCK": 4}
# Longer than what an encoder gives where every block is the same, and shorter than a disk's blocks.
_ZEROS = bytes(64)
_PROGRESSIVE, _HUFFMAN = 0xC2, 0xC4
_KNOWN = (0xC0, 0xC1, _PROGRESSIVE, _HUFFMAN, 0xDB, 0xDD, 0xFE)


def strict_jpeg_fault(data: bytes, width: int, height: int, channels: int | None = None) -> str | None:
    """Why ``data`` is no whole JPEG of that size; None where libjpeg-turbo decodes it without a warning.

    Only its bits are decoded, not its pixels, for half the time of a picture. What follows its end does not count.
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


def jpeg_fault(data: bytes, tables: bytes | None, width: int, height: int, channels: int | None = None) -> str | None:
    """Why a tile is no whole JPEG of that size, with the tables that its file holds for all; None where it is."""
    if data[:2] != b"\xff\xd8":
        return "it does not begin as JPEG does"
    fault = strict_jpeg_fault(with_tables(data, tables), width, height, channels)
    if fault is not None:
        return fault
    kinds, _, ends = zip(*_segments(data))
    if any(kind not in _KNOWN and not 0xE0 <= kind <= 0xEF for kind in kinds):
        return "it is a kind of JPEG that is not read everywhere"
    zeros = data.find(_ZEROS, ends[-1], data.find(b"\xff\xd9", ends[-1]))
    if zeros < 0 or _PROGRESSIVE in kinds or not any(_symbols_of_zeros(part) for part in (data, tables or b"")):
        return None
    return f"it has nothing but zeros at byte {zeros}"


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, begin and end of what lies before the scan of a JPEG."""
    start = 2
    while start + 4 <= len(data) and data[start + 1] not in (0xD9, 0xDA):
        end = start + 1
        # 0xff is filling
        if data[end] != 0xFF:
            end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
            yield data[start + 1], start, end
        start = end


def _symbols_of_zeros(data: bytes) -> set[int]:
    """What the code of zeros, the first one, means in the Huffman tables: 0 of blocks without detail is left out."""
    symbols = set()
    for kind, start, end in _segments(data):
        table = start + 4
        while kind == _HUFFMAN and table + 17 < min(end, len(data)):
            symbols.add(data[table + 17])
            table += 17 + sum(data[table + 1 : table + 17])
    return symbols - {0}


def jpeg_colours(data: bytes) -> str | None:
    """What a JPEG says of its own colours, "RGB" or "YCBCR"; None where it leaves that to the file around it."""
    adobe = re.search(rb"\xff\xee..Adobe.{6}(.)", data[:4096], re.DOTALL)
    if adobe:
        return "YCBCR" if adobe[1] == b"\1" else "RGB"
    if data[2:4] == b"\xff\xe0" and data[6:10] == b"JFIF":
        return "YCBCR"
    frame = re.search(rb"\xff[\xc0-\xc2]\x00\x11\x08.{4}\x03(.)(.).(.)(.).(.)(.).", data[:4096], re.DOTALL)
    if frame is None:
        return None
    if frame[1] + frame[3] + frame[5] == b"RGB":
        return "RGB"
    # only chroma is taken at fewer places than the rest
    return "YCBCR" if frame[2] != frame[4] else None
