"""A segmented slide, as every format takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.engine.counts import Counts
from lightmuseg.engine.entropy import BLOCK, Entropies, uncertainty_map
from lightmuseg.engine.rows import Rows

BAND = 256


@dataclass(frozen=True)
class SegmentedSlide:
    """What is known of a slide.

    While its map grows, bands of it come as soon as they are there; what is of the whole map is filled in afterwards.

    Attributes:
        path: of the slide, a file or the folder of a DICOM series.
        class_map: its width, height, um/px (``mpp``), level-0 pixels to one of its own (``downsample``), class names,
            and bands from the top; see :class:`lightmuseg.engine.rows.Rows`.
        counts, entropies: of the whole map.
        record: what ``run.json`` says; of the whole map, too.
        options: those of the run that decide what the results are.
        tolerance_um: by which regions may differ from the map; None for the largest by which the middle of each pixel
            stays in its own region.
        picture: RGB uint8 [h, w, 3] of the whole slide; what could not be read is striped.
        step0: level-0 pixels to one of the picture.
    """

    path: Path
    class_map: Rows
    counts: Counts
    entropies: Entropies
    record: Mapping[str, Any]
    options: Mapping[str, Any]
    tolerance_um: float | None
    picture: np.ndarray
    step0: float

    @property
    def um_per_pixel(self) -> float:
        """Of the picture."""
        return self.class_map.mpp * self.step0 / self.class_map.downsample

    @cached_property
    def classes(self) -> np.ndarray:
        """Class index of each pixel of the picture, uint8 [h, w]."""
        height, width = self.picture.shape[:2]
        step = self.step0 / self.class_map.downsample
        rows = _under_middles(height, step, 1.0, self.class_map.height)
        columns = _under_middles(width, step, 1.0, self.class_map.width)
        classes = np.empty((height, width), np.uint8)
        top = 0
        for band in self.class_map.bands(BAND):
            inside = (rows >= top) & (rows < top + len(band))
            classes[inside] = band[np.ix_(rows[inside] - top, columns)]
            top += len(band)
        return classes

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """Mean entropy at each pixel of the picture, uint8 [h, w]: 0 (certain) to 254; 255 where there is no tissue.

        See :func:`lightmuseg.engine.entropy.uncertainty_map`.
        """
        blocks, block0 = uncertainty_map(self.class_map), BLOCK * self.class_map.downsample
        rows, columns = (
            _under_middles(side, self.step0, block0, count) for side, count in zip(self.picture.shape, blocks.shape)
        )
        return blocks[np.ix_(rows, columns)]


def _under_middles(count: int, step: float, unit: float, limit: int) -> np.ndarray:
    """Which of ``limit`` units lies under the middle of each of ``count`` pixels, whose side is ``step``."""
    return np.minimum(((np.arange(count) + 0.5) * step / unit).astype(np.int64), limit - 1)
