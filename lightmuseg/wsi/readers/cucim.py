"""Tiled TIFF and SVS by cuCIM."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from lightmuseg.errors import InputError, first_line

from .reader import NotForThisReader, SlideReader, UnreadablePixels
from .tiff_tiles import TiffTiles, x0_of
from .tile_checks import APERIO_RGB, APERIO_YCBCR, DEFLATE, JPEG, JPEG2000, NONE

logger = logging.getLogger(__name__)

# Those that it knows; of LZW it gives what it has.
COMPRESSIONS = (NONE, JPEG, APERIO_RGB, APERIO_YCBCR, *DEFLATE)
# Those of which it takes the tag Predictor, in any page.
PREDICTED = (NONE, JPEG, *JPEG2000, tifffile.COMPRESSION.LZW)
# MB of decoded tiles that are kept for the boxes that overlap them.
CACHE_MB = 128


class CuCIMReader(SlideReader):
    """Boxes decoded by cuCIM, one for each thread.

    cuCIM's own threads are not used: an error in one of them, as by a damaged tile, ends the process.

    Args:
        path: of a tiled TIFF or SVS.
        workers: threads of :meth:`read_batch`.
        device: "cpu", or "cuda" to decode on a GPU.
        series: number of the picture to take; None for the largest.

    Raises:
        NotForThisReader: where cuCIM is not installed, or does not open the file or all of its levels.
        InputError: for pixels that are not 8-bit RGB, or tags that cannot be read.
    """

    backend = "cucim"

    def __init__(self, path: Path, workers: int = 1, device: str = "cpu", series: int | None = None) -> None:
        try:
            from cucim import CuImage
        except ImportError as error:
            raise NotForThisReader(f"{path}: cuCIM is not installed; pip install cucim-cu13 (Linux).") from error
        self.path = path
        self.workers = workers
        self._tiles = TiffTiles(path, series=series)
        self.levels = self._tiles.levels
        self.stated_mpps = self._tiles.stated_mpps
        self.picture = self._tiles.picture
        try:
            self._indices = self._opened(CuImage)
            self._device = _usable_device(self, device)
        except InputError:
            self.close()
            raise

    def _opened(self, image: type) -> list[int]:
        """cuCIM's numbers of the levels."""
        for level in self.levels:
            compression = level.page.compression
            if not level.page.is_tiled or compression not in COMPRESSIONS:
                name = getattr(compression, "name", compression)
                raise NotForThisReader(f"{self.path}: cuCIM is for tiles, not for {name} or strips.")
        for page in self._tiles.file.pages:
            if "Predictor" in page.tags and page.compression not in PREDICTED:
                # at such a page, were it the label's, cuCIM ends the process
                raise NotForThisReader(f"{self.path}: cuCIM cannot open such a page with a predictor.")
        _keep_tiles(image)
        try:
            self._image = image(str(self.path))
            resolutions = self._image.resolutions
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            # TypeError of a name that is no Unicode
            raise NotForThisReader(f"{self.path}: cuCIM does not open it ({first_line(error)}).") from error
        indices = self._tiles.places_in([tuple(size) for size in resolutions["level_dimensions"]], "cuCIM")
        self._downsamples = [resolutions["level_downsamples"][index] for index in indices]
        return indices

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        def decode() -> np.ndarray:
            corner = tuple(x0_of(n, self._downsamples[level]) for n in (xl, yl))
            box = self._image.read_region(corner, (width, height), self._indices[level], device=self._device)
            return np.asarray(box) if self._device == "cpu" else _copied(box, self._device)

        try:
            return self._tiles.read(self.levels[level], (xl, yl, width, height), decode)
        except UnreadablePixels:
            raise
        except (RuntimeError, ValueError, OSError) as error:
            raise self.unreadable(level, xl, yl, width, height, error) from error

    def close(self) -> None:
        if hasattr(self, "_image"):
            self._image.close()
        self._tiles.close()
        super().close()


def _copied(box: Any, device: str) -> np.ndarray:
    """A box that is on a GPU."""
    # takes seconds to import, and is needed here alone
    import torch

    return torch.as_tensor(box, device=device).cpu().numpy()


@lru_cache
def _keep_tiles(image: type) -> None:
    """Set up cuCIM's cache, once: it is the process's, and others may be reading."""
    image.cache("per_process", memory_capacity=CACHE_MB)


def _usable_device(reader: CuCIMReader, device: str) -> str:
    """``device`` where cuCIM decodes on it, else "cpu" with a warning."""
    if device == "cpu":
        return device
    if device.split(":")[0] != "cuda":
        raise InputError(f"device={device!r} is not known; one of cpu, cuda.")
    import torch

    reason = "there is none"
    if torch.cuda.is_available():
        try:
            reader._device = device
            reader.read(0, 0, 0, 1, 1)
            return device
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            reason = first_line(error)
    logger.warning(f"{reader.path}: is decoded on the CPU, not on a GPU ({reason}).")
    return "cpu"
