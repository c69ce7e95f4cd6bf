"""A few tiles of slides that show what a network will see."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lightmuseg.errors import InputError, first_line, user_fault
from lightmuseg.wsi.model_view import ModelView, whole
from lightmuseg.wsi.readers.opening import open_slide

from .options import Options

logger = logging.getLogger(__name__)

# places of a slide that are looked at, in a grid, and how many of them are taken
GRID, TAKEN = 7, 4


def sample_tiles(
    slides: Sequence[str | Path | tuple[str, float | None]], options: Options, tile_size: int
) -> np.ndarray:
    """The tiles with most structure among places all over the first slide that can be read.

    Args:
        slides: files, or folders of DICOM series; each alone or with um/px of its level 0, which goes before the
            options'.
        options: how they are read, and at which um/px.
        tile_size: side of the tiles in model pixels.

    Returns:
        uint8 [N, tile, tile, 3]; none where no slide can be read.
    """
    for slide in slides:
        path, mpp = slide if isinstance(slide, tuple) else (slide, None)
        mpp = options.slide_mpp if mpp is None else mpp
        try:
            with open_slide(
                Path(path), options.backend, mpp, options.workers, options.read_device, series=options.series
            ) as reader:
                tiles = tiles_with_structure(ModelView(reader, options.mpp), tile_size)
        except Exception as error:
            # the segmenter says so when it comes to this slide, which fails alone
            if not isinstance(error, InputError):
                logger.warning("%s: no tiles were taken of it (%s)", path, user_fault(error) or first_line(error))
            continue
        if tiles is not None:
            return tiles
    return np.zeros((0, tile_size, tile_size, 3), np.uint8)


def tiles_with_structure(view: ModelView, tile_size: int) -> np.ndarray | None:
    """Up to four tiles uint8 [N, tile, tile, 3] with most structure among places all over a slide; None unreadable."""
    xs, ys = (
        sorted({round(n * max(0, size - tile_size) / (GRID - 1)) for n in range(GRID)})
        for size in (view.width, view.height)
    )
    tiles = view.read_batch([(x, y) for y in ys for x in xs], tile_size)
    read = [tile for tile in map(whole, tiles) if tile is not None]
    read.sort(key=lambda tile: float(tile[::4, ::4].std()), reverse=True)
    return np.stack(read[:TAKEN]) if read else None
