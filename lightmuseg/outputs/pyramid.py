"""The class map as a pyramidal TIFF that OpenSlide, QuPath, Bio-Formats and tifffile open."""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from lightmuseg import __version__
from lightmuseg.classes import colour_table, meanings_of
from lightmuseg.engine.rows import Rows

from .segmented import SegmentedSlide

TILE = 256
# The longer side of the coarsest level is at most this many pixels.
COARSEST = 512
# Classic TIFF ends at 4 GiB; what deflate and the tables may add to the tiles has room below it.
CLASSIC_BYTES = 4_000_000_000
OME_SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write class indices as a tiled TIFF with a palette, um/px, and levels that halve by the mode.

    The levels are a chain of images, which OpenSlide looks for. Memory holds two rows of tiles. Levels below the first
    wait, encoded, in files without a name beside ``path``.

    Reference: TIFF 6.0
    """
    _write(path, slide.class_map, ome=False)


def write_ome(path: Path, slide: SegmentedSlide) -> None:
    """Write the same as an OME-TIFF, whose levels are sub-images that OpenSlide does not look for.

    Reference: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
    """
    _write(path, slide.class_map, ome=True)


def _write(path: Path, class_map: Rows, ome: bool) -> None:
    sizes = _level_sizes(class_map.width, class_map.height)
    names = class_map.class_names
    description = _ome_xml(class_map) if ome else json.dumps({"classes": meanings_of(names), "mpp": class_map.mpp})
    tags: dict[str, Any] = {
        "dtype": np.uint8,
        "tile": (TILE, TILE),
        "compression": "zlib",
        "photometric": "palette",
        "colormap": np.ascontiguousarray(257 * colour_table(names).T.astype(np.uint16)),
        "resolutionunit": "CENTIMETER",
        "metadata": None,
        "software": f"lightmuseg {__version__}",
    }
    tile_bytes = sum(-(-width // TILE) * -(-height // TILE) for width, height in sizes) * TILE**2
    with ExitStack() as opened:
        pool = opened.enter_context(ThreadPoolExecutor(os.cpu_count()))
        levels: list[_Level] = []
        for width, height in reversed(sizes):
            file = opened.enter_context(tempfile.TemporaryFile(dir=path.parent))
            levels.insert(0, _Level(width, height, levels[0] if levels else None, file, pool))
        # A file that tifffile opens itself it also closes, and is silent where that fails, as on a full network drive.
        output = opened.enter_context(open(path, "wb"))
        tiff = opened.enter_context(tifffile.TiffWriter(output, bigtiff=tile_bytes > CLASSIC_BYTES))
        for number, level in enumerate(levels):
            tiff.write(
                level.spilled_tiles() if number else level.tiles_of(class_map.bands(TILE)),
                shape=(level.height, level.width),
                resolution=(1e4 / (class_map.mpp * 2**number),) * 2,
                description=description if number == 0 else None,
                subfiletype=int(number > 0),
                subifds=len(levels) - 1 if ome and number == 0 else 0,
                **tags,
            )


class _Level:
    """One level: takes its pixels in rows of tiles, encodes these, and hands their halves to the next."""

    def __init__(self, width: int, height: int, lower: _Level | None, file: IO[bytes], pool: ThreadPoolExecutor):
        self.width, self.height, self.lower = width, height, lower
        self._file, self._pool = file, pool
        self._lengths: list[int] = []
        self._band = np.empty((TILE, width), np.uint8)
        self._filled = 0

    def tiles_of(self, bands: Iterator[np.ndarray]) -> Iterator[bytes]:
        """The tiles of the bands of this level, in order; what they give to the levels below is spilled meanwhile."""
        for band in bands:
            yield from self._encoded(band)

    def spilled_tiles(self) -> Iterator[bytes]:
        """The tiles of this level in order, once the level above it is complete."""
        self._spill()
        self._file.seek(0)
        for length in self._lengths:
            yield self._file.read(length)

    def _encoded(self, band: np.ndarray) -> list[bytes]:
        lower = self.lower
        halves = None if lower is None else lower._band[lower._filled : lower._filled + -(-len(band) // 2)]
        jobs = []
        for x in range(0, self.width, TILE):
            half = None if halves is None else halves[:, x // 2 : (x + TILE) // 2]
            jobs.append(self._pool.submit(_encode, band[:, x : x + TILE], half))
        tiles = [job.result() for job in jobs]
        if lower is not None:
            lower._filled += len(halves)
            if lower._filled == TILE:
                lower._spill()
        return tiles

    def _spill(self) -> None:
        if self._filled:
            for tile in self._encoded(self._band[: self._filled]):
                self._lengths.append(self._file.write(tile))
            self._filled = 0


def halve(classes: np.ndarray) -> np.ndarray:
    """The most frequent index of each two by two pixels; of equally frequent ones the first in reading order.

    Args:
        classes: uint8 [H, W]; the last row or column is repeated where their number is odd.

    Returns:
        uint8 [ceil(H / 2), ceil(W / 2)].
    """
    odd_rows, odd_columns = classes.shape[0] % 2, classes.shape[1] % 2
    if odd_rows or odd_columns:
        classes = np.pad(classes, ((0, odd_rows), (0, odd_columns)), mode="edge")
    a, b, c, d = (np.ascontiguousarray(classes[y::2, x::2]) for y in (0, 1) for x in (0, 1))
    # Whatever occurs twice is the mode, and a pair that holds the first pixel is met first.
    first_alone = (a != b) & (a != c) & (a != d)
    second_again = (b == c) | (b == d)
    return np.where(first_alone & second_again, b, np.where(first_alone & (c == d), c, a))


def _encode(tile: np.ndarray, half: np.ndarray | None) -> bytes:
    """A tile's deflated bytes, filled up to a whole one; ``half`` gets its pixels halved."""
    first = tile[0, 0]
    if (tile == first).all():
        if half is not None:
            half[:] = first
        return _constant_tile(int(first))
    if half is not None:
        half[:] = halve(tile)
    rows, columns = tile.shape
    if tile.shape != (TILE, TILE):
        tile = np.pad(tile, ((0, TILE - rows), (0, TILE - columns)), mode="edge")
    return _deflate(np.ascontiguousarray(tile))


@lru_cache(maxsize=256)
def _constant_tile(index: int) -> bytes:
    return _deflate(bytes([index]) * TILE**2)


def _deflate(pixels: bytes | np.ndarray) -> bytes:
    """Runs alone make class maps as small as zlib's level 6 does within a tenth, in a fifth of its time."""
    coder = zlib.compressobj(strategy=zlib.Z_RLE)
    return coder.compress(pixels) + coder.flush()


def _level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    """(width, height) of each level, the finest first."""
    sizes = [(width, height)]
    while max(sizes[-1]) > COARSEST:
        width, height = sizes[-1]
        sizes.append((-(-width // 2), -(-height // 2)))
    return sizes


def _ome_xml(class_map: Rows) -> bytes:
    """OME-XML of one plane, without the optional UUID: two runs write the same bytes."""
    creator = f"lightmuseg {__version__}"
    root = ElementTree.Element("OME", {"xmlns": OME_SCHEMA, "Creator": creator})
    image = ElementTree.SubElement(root, "Image", {"ID": "Image:0", "Name": "classes"})
    meanings = (f"{index} {name}" for index, name in meanings_of(class_map.class_names).items())
    ElementTree.SubElement(image, "Description").text = ", ".join(meanings)
    sizes = {"SizeX": class_map.width, "SizeY": class_map.height, "SizeZ": 1, "SizeC": 1, "SizeT": 1}
    physical = {f"PhysicalSize{axis}": class_map.mpp for axis in "XY"}
    units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
    attributes = {"ID": "Pixels:0", "DimensionOrder": "XYCZT", "Type": "uint8", **sizes, **physical, **units}
    pixels = ElementTree.SubElement(image, "Pixels", {name: str(value) for name, value in attributes.items()})
    ElementTree.SubElement(pixels, "Channel", {"ID": "Channel:0:0", "Name": "class", "SamplesPerPixel": "1"})
    ElementTree.SubElement(pixels, "TiffData", {"IFD": "0", "PlaneCount": "1"})
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
