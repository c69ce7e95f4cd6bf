"""Slides of many scanners by OpenSlide.

MRXS, SCN, BIF and CZI have a level 0 as large as the glass, or larger, and say in ``openslide.bounds-*`` where in it
the scanned fields lie. QuPath shows this box alone, and its coordinates begin in the box's corner; so do ours.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.errors import first_line

from ..tiff import is_tiff
from .reader import WHITE, Bounds, Level, NotForThisReader
from .scanner_tiff import MAPPED, ScannerTiff
from .tiff_tiles import TiffReader

logger = logging.getLogger(__name__)

# Formats that are plain pyramids of tiles, whose bytes can be checked: OpenSlide hides what is wrong with JPEG 2000.
PLAIN = ("generic-tiff", "aperio")
_BOUNDS = ("x", "y", "width", "height")


def format_of(path: Path) -> str | None:
    """OpenSlide's name of a file's format; None where it knows none or is not installed."""
    try:
        import openslide
    except ImportError:
        return None
    try:
        return openslide.OpenSlide.detect_format(path)
    except (openslide.OpenSlideError, OSError):
        return None


def bounds_of(path: Path, properties: Mapping[str, str], size: tuple[int, int]) -> Bounds | None:
    """The box that OpenSlide's properties name, cut where it reaches over the file's level 0 of that width and height.

    None where all of level 0 is the slide: where they name no box, or, with a warning, one that cannot be.
    """
    stated = [properties.get(f"openslide.bounds-{name}") for name in _BOUNDS]
    if stated == [None] * 4:
        return None
    text = ", ".join(f"{name} {value}" for name, value in zip(_BOUNDS, stated))
    if all(re.fullmatch(r"-?\d{1,15}", value or "") for value in stated):
        x0, y0, width, height = (int(value) for value in stated)
        if 0 <= x0 < size[0] and 0 <= y0 < size[1] and min(width, height) > 0:
            bounds = Bounds(x0, y0, min(width, size[0] - x0), min(height, size[1] - y0))
            if (bounds.width, bounds.height) != (width, height):
                logger.warning(f"{path}: its bounds ({text}) reach over its {size[0]} x {size[1]} pixels and are cut.")
            return bounds if bounds != Bounds(0, 0, *size) else None
    logger.warning(
        f"{path}: its bounds ({text}) are no box in its {size[0]} x {size[1]} pixels; all of it is taken, and a viewer "
        "may count from another corner."
    )
    return None


class OpenSlideReader(TiffReader):
    """Boxes read by OpenSlide; what a slide leaves out is white.

    OpenSlide counts in the file's level 0, the levels here in its :class:`.Bounds`. Where a box's corner lies between
    two pixels of a level, by its downsample or by the bounds' corner, OpenSlide blends them.
    """

    backend, package = "openslide", "openslide"

    def _opened(self) -> None:
        try:
            import openslide
        except ImportError as error:
            raise NotForThisReader(
                f"{self.path}: OpenSlide is not installed; pip install 'lightmuseg[slides]'."
            ) from error
        self.decoding_errors = (openslide.OpenSlideError, OSError)
        self._library, self._swap = openslide.OpenSlide, threading.Lock()
        # of some tags OpenSlide ends the process
        vendor, scanner = format_of(self.path), None
        self._is_plain = vendor in PLAIN
        if self._is_plain:
            self._open_tiff()
        elif vendor is not None and is_tiff(self.path):
            scanner = ScannerTiff(self.path, self._open)
        try:
            self._slide = self._library(self.path)
        except (*self.decoding_errors, ValueError) as error:
            raise NotForThisReader(f"{self.path}: OpenSlide does not open it ({first_line(error)}).") from error
        # it may be another one by then
        self._open.callback(lambda: self._slide.close())
        properties, sizes = self._slide.properties, self._slide.level_dimensions
        downsamples = self._slide.level_downsamples
        self.bounds = bounds_of(self.path, properties, sizes[0])
        is_covered = vendor in MAPPED and scanner is not None and scanner.covers(properties, downsamples)
        self._scanner = scanner if vendor in MAPPED else None
        if self._is_plain:
            self._indices = self._places_in(sizes, "OpenSlide")
        else:
            self.unchecked = "" if is_covered or vendor is None else vendor
            self._indices = list(range(len(sizes)))
            mpp_x, mpp_y = (properties.get(f"openslide.mpp-{axis}") for axis in "xy")
            self.stated_mpps = None if mpp_x is None or mpp_y is None else (float(mpp_x), float(mpp_y))
            if (part := self.bounds) is not None:
                sizes = [[max(1, round(side / n)) for side in (part.width, part.height)] for n in downsamples]
            self.levels = tuple(Level(*size, downsample) for size, downsample in zip(sizes, downsamples))
        self._downsamples = [downsamples[index] for index in self._indices]

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        size, downsample = (width, height), self._downsamples[level]

        def decode() -> np.ndarray:
            origin0 = (self.bounds.x0, self.bounds.y0) if self.bounds is not None else (0, 0)
            corner0 = tuple(start + round(n * downsample) for start, n in zip(origin0, (xl, yl)))
            if self._scanner is not None:
                self._scanner.check(corner0, downsample, size)
            return self._box(corner0, self._indices[level], size)

        return self.levels[level].read((xl, yl, *size), decode) if self._is_plain else decode()

    def _box(self, corner0: tuple[int, int], index: int, size: tuple[int, int]) -> np.ndarray:
        slide = self._slide
        try:
            image = slide.read_region(corner0, index, size)
        except self.decoding_errors:
            # after an error a handle gives errors only; this one may be another thread's
            with self._swap:
                if self._slide is slide:
                    self._slide = self._library(self.path)
            with self._library(self.path) as own:
                image = own.read_region(corner0, index, size)
        if image.getextrema()[3][0] == 255:
            return np.asarray(image.convert("RGB"))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", size, (WHITE,) * 4), image).convert("RGB"))
