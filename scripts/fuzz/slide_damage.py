"""What disks, networks and programs do to the bytes of a slide, for the fuzz of slides."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tifffile

# of what is overwritten, lost or put in: from a few bytes to a disk's block
LENGTHS = (1, 16, 64, 512, 4096)


def _bit(data: bytearray, chance: random.Random) -> str:
    at = chance.randrange(len(data))
    data[at] ^= 1 << chance.randrange(8)
    return f"bit at {at}"


def _noise(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    data[at : at + length] = chance.randbytes(length)
    return f"{length} bytes of noise at {at}"


def _zeros(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    data[at : at + length] = bytes(length)
    return f"{length} bytes of zeros at {at}"


def _ones(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    data[at : at + length] = b"\xff" * length
    return f"{length} bytes of ones at {at}"


def _lost(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    del data[at : at + length]
    return f"{length} bytes lost at {at}"


def _put_in(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    data[at:at] = chance.randbytes(length)
    return f"{length} bytes put in at {at}"


def _copied(data: bytearray, chance: random.Random) -> str:
    at, length = _place(data, chance)
    source = chance.randrange(len(data) - length + 1)
    data[at : at + length] = data[source : source + length]
    return f"{length} bytes of {source} at {at}"


def _cut(data: bytearray, chance: random.Random) -> str:
    at = chance.randrange(len(data))
    del data[at:]
    return f"cut at {at}"


def _place(data: bytearray, chance: random.Random) -> tuple[int, int]:
    length = min(chance.choice(LENGTHS), len(data))
    return chance.randrange(len(data) - length + 1), length


@dataclass(frozen=True)
class _Numbers:
    """Where a tag's numbers stand in a file: their first byte, how many, bytes of each, and the file's byte order."""

    name: str
    at: int
    count: int
    size: int
    order: str

    def value(self, data: bytearray, index: int) -> int:
        return int.from_bytes(self._bytes(data, index), "little" if self.order == "<" else "big")

    def _bytes(self, data: bytearray, index: int) -> bytearray:
        return data[self.at + index * self.size :][: self.size]

    def set(self, data: bytearray, index: int, value: int) -> None:
        number = value.to_bytes(self.size, "little" if self.order == "<" else "big")
        data[self.at + index * self.size : self.at + (index + 1) * self.size] = number


def numbers_of(path: Path) -> dict[int, list[_Numbers]]:
    """Of each page of a TIFF the numbers of its offsets and of its byte counts."""
    found = {}
    with tifffile.TiffFile(path) as file:
        pages = [page for first in file.pages for page in (first, *(first.pages or ()))]
        for index, page in enumerate(pages):
            numbers = []
            for kind in ("Offsets", "ByteCounts"):
                tag = page.tags.get(f"Tile{kind}") or page.tags.get(f"Strip{kind}")
                size = struct.calcsize(tifffile.TIFF.DATA_FORMATS[tag.dtype][-1])
                numbers.append(_Numbers(kind, tag.valueoffset, tag.count, size, file.byteorder))
            found[index] = numbers
    return found


def _in_tags(data: bytearray, chance: random.Random, path: Path) -> str:
    """A byte of the tables of tags, or a number that says where a tile lies."""
    kind = chance.choice(("tag", "shared", "no bytes", "fewer bytes", "elsewhere"))
    if kind == "tag":
        with tifffile.TiffFile(path) as file:
            page = chance.choice(list(file.pages))
            at = page.offset + chance.randrange(file.tiff.tagnosize + len(page.tags) * file.tiff.tagsize)
        data[at] = chance.randrange(256)
        return f"byte {at} of the tags"
    offsets, counts = chance.choice(list(numbers_of(path).values()))
    one, other = chance.randrange(offsets.count), chance.randrange(offsets.count)
    if kind == "shared":
        for numbers in (offsets, counts):
            numbers.set(data, one, numbers.value(data, other))
    elif kind == "no bytes":
        counts.set(data, one, 0)
    elif kind == "fewer bytes":
        counts.set(data, one, counts.value(data, one) // 2)
    elif kind == "elsewhere":
        offsets.set(data, one, chance.randrange(len(data)))
    return f"tile {one} {kind} ({other})"


DAMAGES: dict[str, Callable[[bytearray, random.Random], str]] = {
    "bit": _bit,
    "noise": _noise,
    "zeros": _zeros,
    "ones": _ones,
    "lost": _lost,
    "put in": _put_in,
    "copied": _copied,
    "cut": _cut,
}


def damage(source: Path, target: Path, chance: random.Random) -> tuple[str, str]:
    """Write a damaged copy of a slide; which kind of damage, and what was done where."""
    data = bytearray(source.read_bytes())
    kinds = [*DAMAGES, *(["tags"] if data[:2] in (b"II", b"MM") else [])]
    kind = chance.choice(kinds)
    done = _in_tags(data, chance, source) if kind == "tags" else DAMAGES[kind](data, chance)
    target.write_bytes(data)
    return kind, done
