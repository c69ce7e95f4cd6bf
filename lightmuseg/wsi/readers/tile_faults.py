"""What can be seen of a damaged tile in its compressed bytes.

Decoders hide damage: of a broken JPEG or JPEG 2000 tile cuCIM, imagecodecs and in part OpenSlide give whatever they
have by then. So JPEG is decoded by libjpeg-turbo that stops where it would warn, but for a run of zeros, which can be
valid data. OpenJPEG does not warn, so of JPEG 2000 the markers are looked at: in its data a byte 0xff is followed by
few others, so that bytes of something else soon give themselves away, 4 kB of noise all but surely, 500 bytes in two
cases of three. What is not seen is damage that leaves valid data, such as every other changed bit in JPEG.

References: ITU-T T.81, annex B (JPEG); ITU-T T.800, annex A (JPEG 2000).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..jpeg import strict_jpeg_fault, with_tables

# In JPEG 2000's packets by at most 0x8f, but for the start of a packet (SOP) and the end of its header (EPH).
_JPEG2000_MARKER = re.compile(rb"\xff[\x90\x93-\xff]")
# Longer than what an encoder gives where every block is the same, and shorter than a disk's blocks.
_ZEROS = bytes(64)


def jpeg_fault(data: bytes, tables: bytes | None, width: int, height: int, channels: int | None = None) -> str | None:
    """Why ``data`` is no whole JPEG of that size; None where nothing is wrong with it.

    Args:
        data: the bytes of a tile.
        tables: JPEG tables that the file holds once for all tiles.
        width, height: of a tile, in pixels.
        channels: of a tile; None for any number.
    """
    if data[:2] != b"\xff\xd8":
        return "it does not begin as JPEG does"
    fault = strict_jpeg_fault(with_tables(data, tables), width, height, channels)
    if fault is not None:
        return fault
    huffman, progressive, at = [tables or b""], False, 2
    while (kind := data[at + 1]) != 0xDA:
        if kind == 0xFF:
            # filling
            at += 1
            continue
        if kind not in (0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xFE) and not 0xE0 <= kind <= 0xEF:
            return "it is a kind of JPEG that is not read everywhere"
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        progressive |= kind == 0xC2
        if kind == 0xC4:
            huffman.append(data[at:end])
        at = end
    zeros = data.find(_ZEROS, at, data.find(b"\xff\xd9", at))
    if zeros >= 0 and not (progressive or _zeros_are_flat(huffman)):
        return f"it has nothing but zeros at byte {zeros}"
    return None


def _zeros_are_flat(huffman: list[bytes]) -> bool:
    """Whether zeros stand for blocks without detail: the code of zeros says so in each of the tables."""
    return all(symbol == 0 for segment in huffman for symbol in _symbols_of_zeros(segment))


def _symbols_of_zeros(segment: bytes) -> Iterator[int]:
    """What the code that is all zeros, the first one, means in each Huffman table of a JPEG's part."""
    start = segment.find(b"\xff\xc4")
    while start >= 0:
        at, end = start + 4, start + 2 + int.from_bytes(segment[start + 2 : start + 4], "big")
        while at + 17 < min(end, len(segment)):
            yield segment[at + 17]
            at += 17 + sum(segment[at + 1 : at + 17])
        start = segment.find(b"\xff\xc4", max(end, start + 2))


def jpeg2000_fault(data: bytes, width: int, height: int) -> str | None:
    """Why ``data`` is no whole JPEG 2000 codestream of that size; None where nothing is wrong with it."""
    if data[4:8] == b"jP  ":
        # a file of its own, around the codestream
        data = data[data.find(b"\xff\x4f\xff\x51") :]
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 42:
        return "it does not begin as JPEG 2000 does"
    right, lower, left, upper = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16, 20))
    if (right - left, lower - upper) != (width, height):
        return "its size is another one than the file says"
    packets = None
    at = 2
    while at + 4 <= len(data):
        kind, length = data[at : at + 2], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == b"\xff\xd9":
            return None
        if kind == b"\xff\x90":
            part, size = at, int.from_bytes(data[at + 6 : at + 10], "big")
            end = part + size if size else len(data.rstrip(b"\0")) - 2
            body = data.find(b"\xff\x93", at, end) + 2
            if body < 2 or end > len(data):
                return "its parts are longer than it is"
            if _JPEG2000_MARKER.search(data, body, end):
                return "its data is damaged"
            # an empty packet is one byte, 0
            if packets is not None and data.find(bytes(packets + 64), body, end) >= 0:
                return "it has nothing but zeros in a part"
            at = end
            continue
        if kind[0] != 0xFF or kind[1] < 0x4F or at + 12 > len(data):
            return "its header is damaged"
        if kind == b"\xff\x52" and not data[at + 4] & 1:
            layers, levels = int.from_bytes(data[at + 6 : at + 8], "big"), data[at + 9]
            packets = layers * (levels + 1) * 3
        at += 2 + length
    # some leave the end's marker out, and DICOM makes the length even
    return None if data[at:].rstrip(b"\0") in (b"\xff\xd9", b"") else "its data is damaged"


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


def jpeg2000_colours(data: bytes) -> str | None:
    """What a JPEG 2000 codestream says of its own colours: "YCBCR" where they are turned, else "RGB"; None unknown."""
    at = data.find(b"\xff\x52", 0, 4096)
    return ("YCBCR" if data[at + 8] else "RGB") if 0 <= at < len(data) - 8 else None
