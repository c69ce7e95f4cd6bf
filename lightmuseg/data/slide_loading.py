"""A tile's pixels and codes, read from slide and mask when the sample is needed."""

from __future__ import annotations

import zlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from lightmuseg.errors import InputError
from lightmuseg.wsi.model_view import read_box
from lightmuseg.wsi.readers import UnreadablePixels
from lightmuseg.wsi.readers.opening import kept_open

from .tiles import filled


@dataclass(frozen=True)
class SlideTile:
    """Where a tile's pixels lie.

    ``box0``, (x0, y0, width0, height0) in level-0 pixels of ``mpp`` um/px, becomes ``size``, (width, height) in pixels;
    what is missing to a square of ``tile_size`` right and below is mirrored.
    """

    name: str
    slide: str
    mpp: float
    box0: tuple[float, float, float, float]
    size: tuple[int, int]
    tile_size: int


@dataclass(frozen=True)
class MaskTile:
    """BCSS codes of a tile, compressed: decoding a region's whole mask for each of its tiles would starve training."""

    name: str
    deflated: bytes = field(repr=False)
    tile_size: int


class LoadSlideTiled(MapTransform):
    """Read :class:`SlideTile` from its slide, as float32 [3, H, W] of 0 to 255 with the tile's name in ``meta``.

    The pixels are those that inference sees: of the level that has the tile's um/px, or of the next finer one
    resampled as BCSS was, Lanczos down, bicubic up. A process opens a slide when it first needs it and keeps it open,
    so workers may be forked or spawned.

    Args:
        keys: of the tiles.
        backend: what reads the slides, as of :func:`lightmuseg.wsi.readers.open_slide`.
        allow_missing_keys: as in MONAI.

    Raises:
        InputError: when called, for a slide that cannot be opened or pixels that cannot be decoded.
    """

    def __init__(self, keys: KeysCollection, backend: str = "auto", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.backend = backend

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tile = result[key]
            try:
                pixels = read_box(kept_open(tile.slide, self.backend, tile.mpp), *tile.box0, tile.size)
            except UnreadablePixels as error:
                # by its line a loader's worker tells its parent of an InputError, not of other kinds
                raise InputError(str(error)) from error
            result[key] = _tensor(filled(pixels, tile.tile_size).transpose(2, 0, 1), tile.name)
        return result


class LoadMaskTiled(MapTransform):
    """Unpack :class:`MaskTile`, as float32 [1, H, W] of BCSS codes with the tile's name in ``meta``."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            tile = result[key]
            codes = np.frombuffer(zlib.decompress(tile.deflated), np.uint8)
            result[key] = _tensor(codes.reshape(1, tile.tile_size, tile.tile_size), tile.name)
        return result


def _tensor(pixels: np.ndarray, name: str) -> MetaTensor:
    return MetaTensor(torch.tensor(pixels, dtype=torch.float32), meta={"filename_or_obj": name})
