"""Slides of many scanners by OpenSlide."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError, first_line

from .frame import frame_of
from .reader import WHITE, Level, NotForThisReader, SlideReader
from .scanner_tiff import MAPPED, ScannerTiff, is_tiff
from .tiff_tiles import TiffTiles

INSTALL = "OpenSlide is not installed; pip install 'lightmuseg[slides]'."
# Formats that are plain pyramids of tiles, whose bytes can be checked: OpenSlide hides what is wrong with JPEG 2000.
PLAIN = ("generic-tiff", "aperio")


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


def _is_tiff(path: Path) -> bool:
    with open(path, "rb") as file:
        return is_tiff(file.read(4))


class OpenSlideReader(SlideReader):
    """Boxes read by OpenSlide; what a slide leaves out is white.

    OpenSlide counts in the file's level 0, the levels here in its :class:`.Frame`. Where a box's corner lies between
    two pixels of a level, by its downsample or by the frame's corner, OpenSlide blends them.

    Args:
        path: of the slide.
        workers: threads of :meth:`read_batch`.
        series: number of the picture to take in a TIFF of tiles; None for the largest.

    Raises:
        NotForThisReader: where OpenSlide is not installed, or does not open the file or all of its levels.
        InputError: for pixels that are not 8-bit RGB, or tags that cannot be read.
    """

    backend = "openslide"

    def __init__(self, path: Path, workers: int = 1, series: int | None = None) -> None:
        try:
            import openslide
        except ImportError as error:
            raise NotForThisReader(f"{path}: {INSTALL}") from error
        self.path = path
        self.workers = workers
        self._failures = (openslide.OpenSlideError, OSError)
        self._open = openslide.OpenSlide
        self._swap = threading.Lock()
        # of some tags OpenSlide ends the process
        vendor, self._tiles, self._scanner = format_of(path), None, None
        if vendor in PLAIN:
            self._tiles = TiffTiles(path, series=series)
        elif vendor is not None and _is_tiff(path):
            self._scanner = ScannerTiff(path)
        try:
            self._slide = self._open(path)
        except (*self._failures, ValueError) as error:
            self.close()
            raise NotForThisReader(f"{path}: OpenSlide does not open it ({first_line(error)}).") from error
        sizes, downsamples = self._slide.level_dimensions, self._slide.level_downsamples
        self.frame = frame_of(path, self._slide.properties, sizes[0])
        if self.frame is None:
            self.levels = tuple(Level(*size, downsample) for size, downsample in zip(sizes, downsamples))
        else:
            self.levels = tuple(self.frame.in_level(downsample) for downsample in downsamples)
        self._is_mapped = self._scanner is not None and vendor in MAPPED
        if vendor not in (None, *PLAIN):
            covered = self._is_mapped and self._scanner.covers(self._slide.properties, downsamples)
            self.unchecked = "" if covered else vendor
        self._indices = list(range(len(self.levels)))
        if self._tiles is not None:
            self.levels = self._tiles.levels
            self.picture = self._tiles.picture
            try:
                self._indices = self._tiles.places_in(sizes, "OpenSlide")
            except InputError:
                self.close()
                raise
        self._downsamples = [downsamples[index] for index in self._indices]
        self.stated_mpps = self._tiles.stated_mpps if self._tiles is not None else self._mpps()

    def _mpps(self) -> tuple[float, float] | None:
        mpp_x, mpp_y = (self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
        return None if mpp_x is None or mpp_y is None else (float(mpp_x), float(mpp_y))

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        def decode() -> np.ndarray:
            origin0 = (self.frame.x0, self.frame.y0) if self.frame is not None else (0, 0)
            corner0 = tuple(start + round(n * self._downsamples[level]) for start, n in zip(origin0, (xl, yl)))
            if self._is_mapped:
                self._scanner.check(self._slide.properties, corner0, self._downsamples[level], (width, height))
            return self._box(corner0, self._indices[level], (width, height))

        try:
            if self._tiles is None:
                return decode()
            return self._tiles.read(self.levels[level], (xl, yl, width, height), decode)
        except self._failures as error:
            raise self.unreadable(level, xl, yl, width, height, error) from error

    def _box(self, corner0: tuple[int, int], index: int, size: tuple[int, int]) -> np.ndarray:
        slide = self._slide
        try:
            image = slide.read_region(corner0, index, size)
        except self._failures:
            # after an error a handle gives errors only; this one may be another thread's
            with self._swap:
                if self._slide is slide:
                    self._slide = self._open(self.path)
            with self._open(self.path) as own:
                image = own.read_region(corner0, index, size)
        if image.getextrema()[3][0] == 255:
            return np.asarray(image.convert("RGB"))
        return np.asarray(Image.alpha_composite(Image.new("RGBA", size, (WHITE,) * 4), image).convert("RGB"))

    def close(self) -> None:
        for part in ("_slide", "_tiles", "_scanner"):
            if getattr(self, part, None) is not None:
                getattr(self, part).close()
        super().close()
