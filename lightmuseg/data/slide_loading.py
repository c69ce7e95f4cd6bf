"""A tile's pixels and codes, read where they lie when the sample is asked for.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xl, yl`` pixels of one of its levels.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor, WSIReader
from monai.transforms import MapTransform
from monai.utils import OptionalImportError

from lightmuseg.errors import InputError, first_line
from lightmuseg.wsi.resampling import level_for, resampled_box

from .tiles import filled

# Each backend and the package that brings it.
BACKENDS = {"cucim": "cucim-cu13", "openslide": "openslide-python openslide-bin"}
# Slides a process keeps open: OpenSlide caches up to 32 MB of each, and to open one again takes a few ms.
MAX_OPEN = 16
WHITE = 255


@dataclass(frozen=True)
class SlideTile:
    """Where a tile's pixels lie.

    The box of left upper corner ``x0``, ``y0`` and size ``width0``, ``height0``, all in level-0 pixels, becomes
    ``width`` x ``height`` pixels; what is missing to ``size`` x ``size`` right and below is white.
    """

    name: str
    slide: str
    x0: float
    y0: float
    width0: float
    height0: float
    width: int
    height: int
    size: int


@dataclass(frozen=True)
class MaskTile:
    """BCSS codes of a tile, compressed: decoding a region's whole mask for each of its tiles would starve training."""

    name: str
    deflated: bytes = field(repr=False)
    size: int


class LoadSlideTiled(MapTransform):
    """Read :class:`SlideTile` from its slide, as float32 [3, H, W] of 0 to 255 with the tile's name in ``meta``.

    The pixels are those of the level that has the tile's um/px, or the next finer one resampled as BCSS was: Lanczos
    down, bicubic up. A process opens a slide when it first needs it, so workers may be forked or spawned.

    Args:
        keys: of the tiles.
        backend: "cucim" or "openslide".
        allow_missing_keys: as in MONAI.

    Raises:
        InputError: for another backend or one that is not installed; when called, for a slide that cannot be read.
    """

    def __init__(self, keys: KeysCollection, backend: str = "cucim", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        _reader(backend)
        self.backend = backend

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tile = result[key]
            pixels = filled(_pixels(tile, self.backend), tile.size, WHITE)
            result[key] = _tensor(pixels.transpose(2, 0, 1), tile.name)
        return result


class LoadMaskTiled(MapTransform):
    """Unpack :class:`MaskTile`, as float32 [1, H, W] of BCSS codes with the tile's name in ``meta``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tile = result[key]
            codes = np.frombuffer(zlib.decompress(tile.deflated), np.uint8)
            result[key] = _tensor(codes.reshape(1, tile.size, tile.size), tile.name)
        return result


def _tensor(pixels: np.ndarray, name: str) -> MetaTensor:
    return MetaTensor(torch.tensor(pixels, dtype=torch.float32), meta={"filename_or_obj": name})


def _reader(backend: str) -> WSIReader:
    if backend not in BACKENDS:
        raise InputError(f"backend={backend!r} is not known; one of {', '.join(BACKENDS)}.")
    try:
        return WSIReader(backend=backend)
    except OptionalImportError as error:
        other = next(name for name in BACKENDS if name != backend)
        raise InputError(
            f"backend={backend!r} is not installed; pip install {BACKENDS[backend]}, or choose --backend {other}."
        ) from error


@lru_cache(maxsize=MAX_OPEN)
def opened(slide: str, backend: str, process: int) -> tuple[WSIReader, Any]:
    """A slide opened by this process: handles that a parent opened are not used after a fork."""
    reader = _reader(backend)
    return reader, reader.read(slide)


def _faults(backend: str) -> tuple[type[Exception], ...]:
    if backend == "openslide":
        from openslide import OpenSlideError

        return (OSError, OpenSlideError)
    return (OSError, RuntimeError, ValueError)


def _pixels(tile: SlideTile, backend: str) -> np.ndarray:
    """uint8 [height, width, 3] of the part of a tile that lies in its region."""
    try:
        return _resampled(tile, *opened(tile.slide, backend, os.getpid()))
    except _faults(backend) as error:
        raise InputError(
            f"{tile.slide}: cannot be read at {tile.x0:.0f}, {tile.y0:.0f} by {backend} ({first_line(error)}); "
            "copy or export it again."
        ) from error


def _resampled(tile: SlideTile, reader: WSIReader, slide: Any) -> np.ndarray:
    # the error of a scale that is called equal stays under half a pixel at the tile's far edge
    tolerance = 0.5 / tile.size
    size = tile.width, tile.height
    finest = min(tile.width0 / tile.width, tile.height0 / tile.height) * (1 + tolerance)
    downsamples = [float(reader.get_downsample_ratio(slide, index)) for index in range(reader.get_level_count(slide))]
    level = level_for(downsamples, finest)
    xl, yl, width, height = (n / downsamples[level] for n in (tile.x0, tile.y0, tile.width0, tile.height0))
    if all(abs(extent / n - 1) < tolerance for extent, n in zip((width, height), size)):
        return _level_pixels(reader, slide, level, (round(xl), round(yl)), size)
    level_height, level_width = reader.get_size(slide, level)
    box = resampled_box((xl, yl), (width, height), size, (level_width, level_height))
    return box.resampled(_level_pixels(reader, slide, level, box.corner, box.size))


def _level_pixels(
    reader: WSIReader, slide: Any, level: int, corner: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """uint8 [H, W, 3] at ``corner`` (xl, yl) and of ``size`` (width, height) in a level; white outside the slide."""
    level_height, level_width = reader.get_size(slide, level)
    width, height = min(size[0], level_width - corner[0]), min(size[1], level_height - corner[1])
    canvas = np.full((size[1], size[0], 3), WHITE, np.uint8)
    if width > 0 and height > 0:
        # the reader takes (row, column) of level 0
        downsample = reader.get_downsample_ratio(slide, level)
        location = (round(corner[1] * downsample), round(corner[0] * downsample))
        canvas[:height, :width] = reader.get_data(slide, location, (height, width), level)[0].transpose(1, 2, 0)
    return canvas
