"""Tiled TIFF and SVS by cuCIM."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import numpy as np
import tifffile

from lightmuseg.errors import InputError, first_line

from ..tile_grid import JPEG2000
from .reader import NotForThisReader
from .tiff_tiles import TiffReader, x0_of
from .tile_checks import DEFLATE

logger = logging.getLogger(__name__)

_NONE_OR_JPEG = (tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.JPEG)
# Those that it knows; of LZW it gives what it has.
COMPRESSIONS = (*_NONE_OR_JPEG, *JPEG2000[:2], *DEFLATE)
# Those of which it takes the tag Predictor, in any page.
PREDICTED = (*_NONE_OR_JPEG, *JPEG2000, tifffile.COMPRESSION.LZW)
# MB of decoded tiles that are kept for the boxes that overlap them.
CACHE_MB = 128


class CuCIMReader(TiffReader):
    """Boxes of a tiled TIFF or SVS decoded by cuCIM, one for each thread.

    cuCIM's own threads are not used: an error in one of them, as by a damaged tile, ends the process.
    """

    backend, package = "cucim", "cucim"
    decoding_errors = (RuntimeError, ValueError, OSError)

    def _opened(self) -> None:
        try:
            from cucim import CuImage
        except ImportError as error:
            raise NotForThisReader(f"{self.path}: cuCIM is not installed; pip install cucim-cu13 (Linux).") from error
        self._open_tiff()
        for level in self.levels:
            compression = level.page.compression
            if not level.page.is_tiled or compression not in COMPRESSIONS:
                name = getattr(compression, "name", compression)
                raise NotForThisReader(f"{self.path}: cuCIM is for tiles, not for {name} or strips.")
        for page in self._file.pages:
            if "Predictor" in page.tags and page.compression not in PREDICTED:
                # at such a page, were it the label's, cuCIM ends the process
                raise NotForThisReader(f"{self.path}: cuCIM cannot open such a page with a predictor.")
        _keep_tiles(CuImage)
        try:
            self._image = CuImage(str(self.path))
            self._open.callback(self._image.close)
            resolutions = self._image.resolutions
        except (*self.decoding_errors, TypeError) as error:
            # TypeError of a name that is no Unicode
            raise NotForThisReader(f"{self.path}: cuCIM does not open it ({first_line(error)}).") from error
        self._indices = self._places_in([tuple(size) for size in resolutions["level_dimensions"]], "cuCIM")
        self._downsamples = [resolutions["level_downsamples"][index] for index in self._indices]
        self._device = self._usable(self._device)

    def _usable(self, device: str) -> str:
        """``device`` where cuCIM decodes on it, else "cpu" with a warning."""
        if device == "cpu":
            return device
        if device.split(":")[0] != "cuda":
            raise InputError(f"device={device!r} is not known; one of cpu, cuda.")
        import torch

        reason = "there is none"
        if torch.cuda.is_available():
            try:
                self._decoded(0, 0, 0, 1, 1)
                return device
            except (*self.decoding_errors, TypeError) as error:
                reason = first_line(error)
        logger.warning(f"{self.path}: is decoded on the CPU, not on a GPU ({reason}).")
        return "cpu"

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        def decode() -> np.ndarray:
            corner = tuple(x0_of(n, self._downsamples[level]) for n in (xl, yl))
            box = self._image.read_region(corner, (width, height), self._indices[level], device=self._device)
            return np.asarray(box) if self._device == "cpu" else _copied(box, self._device)

        return self.levels[level].read((xl, yl, width, height), decode)


def _copied(box: Any, device: str) -> np.ndarray:
    """A box that is on a GPU."""
    # takes seconds to import, and is needed here alone
    import torch

    return torch.as_tensor(box, device=device).cpu().numpy()


@lru_cache
def _keep_tiles(image: type) -> None:
    """Set up cuCIM's cache, once: it is the process's, and others may be reading."""
    image.cache("per_process", memory_capacity=CACHE_MB)
