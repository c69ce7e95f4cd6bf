"""A level of a DICOM slide as the grid of its frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError, first_line

from .frame_order import ORDERS, Seams, contradicted, proven_order
from .reader import UnreadablePixels
from .tiff_tiles import MAX_TILE_PIXELS
from .tile_faults import jpeg2000_fault, jpeg_colours, jpeg_fault

# Of all levels; 200,000 pixels square in frames of 128 are 2.4 million.
MAX_FRAMES = 16_000_000
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
JPEG2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
# Frames, from all over a level, of which one must be readable.
TRIED = 64


class FrameGrid:
    """The frames of a level, checked once each and cut to the boxes that are asked for.

    Args:
        path: of the slide, for messages.
        level: wsidicom's.
        downsample: level-0 pixels to one of its own.

    Attributes:
        width, height: of the level in pixels.

    Raises:
        InputError: where its pixels are not 8-bit RGB, or the grid cannot be.
    """

    def __init__(self, path: Path, level: Any, downsample: float) -> None:
        self._path, self._downsample = path, downsample
        self._instance = level.default_instance
        self._image = image = self._instance.image_data
        self.width, self.height = level.size.width, level.size.height
        self._tile = level.tile_size.width, level.tile_size.height
        self._syntax = str(image.transfer_syntax)
        if image.samples_per_pixel != 3 or image.bits != 8:
            raise InputError(
                f"{path}: is {image.bits}-bit {image.photometric_interpretation} with "
                f"{image.samples_per_pixel} channels, not 8-bit RGB; convert it to 8-bit RGB first."
            )
        self.rows, self.columns = math.ceil(self.height / self._tile[1]), math.ceil(self.width / self._tile[0])
        if self.rows * self.columns > MAX_FRAMES or math.prod(self._tile) > MAX_TILE_PIXELS:
            raise InputError(
                f"{path}: says that it is {self.width} x {self.height} pixels in frames of {self._tile[0]} x "
                f"{self._tile[1]}; export it again."
            )
        self._order = ORDERS["rows"]
        self._checked = np.zeros((self.rows, self.columns), bool)
        self._faults: dict[tuple[int, int], str] = {}
        self._refuse_other_colours()

    def _refuse_other_colours(self) -> None:
        said, told = self._image.photometric_interpretation, None
        if self._syntax in JPEG:
            told = jpeg_colours(self._encoded(0, 0))
            wrong = told is not None and (told == "RGB") != (said == "RGB")
        else:
            # decoders give what is stored; only JPEG 2000 says itself how its colours are to be turned
            wrong = said != "RGB" and not (self._syntax in JPEG2000 and said in ("YBR_ICT", "YBR_RCT"))
        if wrong:
            raise InputError(
                f"{self._path}: says that it is {said}, its frames are {told or 'not JPEG'}; convert it to RGB, or "
                "export it again."
            )

    def refuse_unreadable(self) -> None:
        """Raise an InputError where no frame can be decoded, as far as is tried."""
        count = self.rows * self.columns
        places = np.random.default_rng(0).choice(count, min(count, TRIED), replace=False)
        fault = ""
        for place in places:
            try:
                self._frame(*divmod(int(place), self.columns))
                return
            except UnreadablePixels:
                fault = fault or self._faults[divmod(int(place), self.columns)]
        raise InputError(f"{self._path}: none of its frames that were tried can be decoded ({fault}); export it again.")

    def prove_order(self, orderless: bool) -> None:
        """Find the order of frames by their seams where it is not told, and compare it with what is told.

        Raises:
            InputError: where the seams prove none, or another one than is told.
        """
        seams = Seams(self._readable, self.rows, self.columns)
        if orderless:
            order = proven_order(seams, self.rows, self.columns)
            if order is None:
                raise InputError(
                    f"{self._path}: does not say where its {self.rows * self.columns} frames lie, and their borders "
                    "prove no order of rows or columns; export it again with their positions."
                )
            self._order = ORDERS[order]
        elif contradicted(seams):
            raise InputError(
                f"{self._path}: the {self.columns} x {self.rows} frames of its level of {self.width} x {self.height} "
                "pixels do not fit together where it says that they lie; export it again."
            )

    def box(self, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """uint8 [height, width, 3] of a box that lies inside the level.

        Raises:
            UnreadablePixels: where a frame of it cannot be decoded.
        """
        across, down = self._tile
        pixels = np.empty((height, width, 3), np.uint8)
        for row in range(yl // down, math.ceil((yl + height) / down)):
            for column in range(xl // across, math.ceil((xl + width) / across)):
                frame = self._frame(row, column)
                left, upper = column * across - xl, row * down - yl
                part = frame[max(0, -upper) : height - upper, max(0, -left) : width - left]
                pixels[max(0, upper) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
        return pixels

    def _readable(self, row: int, column: int) -> np.ndarray | None:
        try:
            return self._frame(row, column)
        except UnreadablePixels:
            return None

    def _frame(self, row: int, column: int) -> np.ndarray:
        """uint8 [frame's height, width, 3] of a place in the picture."""
        from wsidicom.geometry import Point

        place = row, column
        if place not in self._faults:
            try:
                fault = None if self._checked[place] else self._fault(row, column)
                if fault is None:
                    self._checked[place] = True
                    pixels = self._image.get_decoded_tile(
                        Point(*self._stored(row, column)), self._instance.default_z, self._instance.default_path
                    )
                    if pixels.shape == (*self._tile[::-1], 3):
                        return pixels
                    fault = "its size is another one than the file says"
            # decoders and wsidicom raise errors of many kinds
            except Exception as error:
                fault = first_line(error)
            self._faults[place] = fault
        x0, y0 = (round(n * self._downsample) for n in (column * self._tile[0], row * self._tile[1]))
        raise UnreadablePixels(
            f"{self._path}: the frame of {self._tile[0]} x {self._tile[1]} pixels at level-0 pixel {x0}, {y0} cannot "
            f"be decoded ({self._faults[place]}); copy or export it again."
        )

    def _fault(self, row: int, column: int) -> str | None:
        """What is wrong with the bytes of a frame, which decoders hide."""
        if self._syntax in JPEG:
            return jpeg_fault(self._encoded(row, column), None, *self._tile)
        if self._syntax in JPEG2000:
            return jpeg2000_fault(self._encoded(row, column), *self._tile)
        return None

    def _encoded(self, row: int, column: int) -> bytes:
        from wsidicom.geometry import Point

        return self._image.get_encoded_tile(
            Point(*self._stored(row, column)), self._instance.default_z, self._instance.default_path
        )

    def _stored(self, row: int, column: int) -> tuple[int, int]:
        """Column and row by which wsidicom, which takes frames without places for rows, numbers a frame."""
        number = self._order(row, column, self.rows, self.columns)
        return number % self.columns, number // self.columns
