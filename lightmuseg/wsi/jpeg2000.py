"""What can be seen of a damaged JPEG 2000 codestream in its bytes.

OpenJPEG does not warn, so the markers are looked at: in the data a byte 0xff is followed by few others, so that bytes
of something else soon give themselves away, 4 kB of noise all but surely, 500 bytes in two cases of three.

Reference: ITU-T T.800, annex A.
"""

from __future__ import annotations

import re

# In packets by at most 0x8f, but for the start of a packet (SOP) and the end of its header (EPH).
_MARKER = re.compile(rb"\xff[\x90\x93-\xff]")


def jpeg2000_fault(data: bytes, width: int, height: int) -> str | None:
    """Why ``data`` is no whole JPEG 2000 codestream of that size; None where nothing is wrong with it."""
    if data[4:8] == b"jP  ":
        # a file of its own, around the codestream
        data = data[data.find(b"\xff\x4f\xff\x51") :]
    if data[:4] != b"\xff\x4f\xff\x51" or len(data) < 42:
        return "it does not begin as JPEG 2000 does"
    right, lower, left, upper = (int.from_bytes(data[position : position + 4], "big") for position in (8, 12, 16, 20))
    if (right - left, lower - upper) != (width, height):
        return "its size is another one than the file says"
    packets = None
    position = 2
    while position + 4 <= len(data):
        kind, length = data[position : position + 2], int.from_bytes(data[position + 2 : position + 4], "big")
        if kind == b"\xff\xd9":
            return None
        if kind == b"\xff\x90":
            part, size = position, int.from_bytes(data[position + 6 : position + 10], "big")
            end = part + size if size else len(data.rstrip(b"\0")) - 2
            body = data.find(b"\xff\x93", position, end) + 2
            if body < 2 or end > len(data):
                return "its parts are longer than it is"
            if _MARKER.search(data, body, end):
                return "its data is damaged"
            # an empty packet is one byte, 0
            if packets is not None and data.find(bytes(packets + 64), body, end) >= 0:
                return "it has nothing but zeros in a part"
            position = end
            continue
        if kind[0] != 0xFF or kind[1] < 0x4F or position + 12 > len(data):
            return "its header is damaged"
        if kind == b"\xff\x52" and not data[position + 4] & 1:
            layers, levels = int.from_bytes(data[position + 6 : position + 8], "big"), data[position + 9]
            packets = layers * (levels + 1) * 3
        position += 2 + length
    # some leave the end's marker out, and DICOM makes the length even
    return None if data[position:].rstrip(b"\0") in (b"\xff\xd9", b"") else "its data is damaged"


def jpeg2000_colours(data: bytes) -> str | None:
    """What a JPEG 2000 codestream says of its own colours: "YCBCR" where they are turned, else "RGB"; None unknown."""
    position = data.find(b"\xff\x52", 0, 4096)
    return ("YCBCR" if data[position + 8] else "RGB") if 0 <= position < len(data) - 8 else None
