"""A level of a DICOM slide as the grid of its frames."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from lightmuseg.errors import InputError, first_line

from .frame_order import ORDERS, Seams, contradicted, proven_order
from .reader import UnreadablePixels
from .tiff_tiles import MAX_TILE_PIXELS
from .tile_faults import jpeg2000_colours, jpeg2000_fault, jpeg_colours, jpeg_fault

# Of all levels; 200,000 pixels square in frames of 128 are 2.4 million.
MAX_FRAMES = 16_000_000
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
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
        rows, columns: of the grid.
        tile: width and height of a frame.

    Raises:
        InputError: where its pixels are not 8-bit RGB, or the grid cannot be.
    """

    def __init__(self, path: Path, level: Any, downsample: float) -> None:
        self._path, self._downsample = path, downsample
        self._instance = level.default_instance
        self._image = image = self._instance.image_data
        self.width, self.height = level.size.width, level.size.height
        self.tile = level.tile_size.width, level.tile_size.height
        self._syntax = str(image.transfer_syntax)
        if image.samples_per_pixel != 3 or image.bits != 8:
            raise InputError(
                f"{path}: is {image.bits}-bit {image.photometric_interpretation} with "
                f"{image.samples_per_pixel} channels, not 8-bit RGB; convert it to 8-bit RGB first."
            )
        own = self._instance.default_path, self._instance.default_z
        alike = [one for one in level.instances.values() if own[0] in one.optical_paths and own[1] in one.focal_planes]
        if len(alike) > 1:
            raise InputError(
                f"{path}: its series has {len(alike)} pictures of {self.width} x {self.height} pixels; move all "
                "but one away."
            )
        self.rows, self.columns = math.ceil(self.height / self.tile[1]), math.ceil(self.width / self.tile[0])
        if self.rows * self.columns > MAX_FRAMES or math.prod(self.tile) > MAX_TILE_PIXELS:
            raise InputError(
                f"{path}: says that it is {self.width} x {self.height} pixels in frames of {self.tile[0]} x "
                f"{self.tile[1]}; export it again."
            )
        self._order = ORDERS["rows"]
        self._checked = np.zeros((self.rows, self.columns), bool)
        self._faults: dict[tuple[int, int], str] = {}
        self._refuse_places_off_the_grid()
        self._refuse_other_colours()

    def _refuse_other_colours(self) -> None:
        """Decoders give what is stored; only JPEG and JPEG 2000 say how their colours are to be turned into RGB."""
        said, told = self._image.photometric_interpretation, None
        if self._syntax in JPEG:
            data = self._first_encoded()
            told = jpeg_colours(data) if data else None
            wrong = "PARTIAL" in said or (told is not None and (told == "RGB") != (said == "RGB"))
        elif self._syntax in JPEG2000 and said in ("YBR_ICT", "YBR_RCT"):
            data = self._first_encoded()
            told = "RGB" if data and jpeg2000_colours(data) == "RGB" else None
            wrong = told is not None
        else:
            wrong = said != "RGB"
        if wrong:
            raise InputError(
                f"{self._path}: says that it is {said}"
                f"{f', its frames say {told}' if told else ', which is not turned into RGB'}; convert it to RGB, or "
                "export it again."
            )

    def _first_encoded(self) -> bytes | None:
        """The bytes of the first frame that is there, as far as is looked."""
        for number in range(min(self.rows * self.columns, 1000)):
            place = divmod(number, self.columns)
            if not self._is_left_out(*place):
                return self._encoded(*place)
        return None

    def _refuse_places_off_the_grid(self) -> None:
        """wsidicom takes a place between two frames for the one before, and of two frames at a place the last."""
        for dataset in self._instance.datasets:
            if dataset.states_tiled_full or dataset.tile_type.name != "SPARSE":
                continue
            places = dataset.frame_positions
            across, down = self.tile
            if ((places.columns - 1) % across).any() or ((places.rows - 1) % down).any():
                raise InputError(
                    f"{self._path}: its frames of {across} x {down} pixels overlap or lie off their grid; export it "
                    "again with frames side by side."
                )
            parts = [places.columns, places.rows, places.z_offsets, places.optical_path_identifiers]
            at = list(zip(*(part.tolist() for part in parts if part is not None)))
            if len(set(at)) < len(at):
                raise InputError(
                    f"{self._path}: {len(at) - len(set(at))} of its frames lie upon others; export it again."
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

    def prove_order(self, orderless: bool, known: str | None = None) -> str | None:
        """Find the order of frames by their seams where it is not told, and compare it with what is told.

        Args:
            orderless: whether the file does not say where its frames lie.
            known: of ORDERS, that of a finer level, for a level whose seams prove nothing.

        Returns:
            The order, where it had to be found.

        Raises:
            InputError: where the seams prove none, or another one than is told.
        """
        last = self.width - (self.columns - 1) * self.tile[0], self.height - (self.rows - 1) * self.tile[1]
        found = None
        if orderless:
            found = proven_order(Seams(self._readable, self.rows, self.columns, last), self.rows, self.columns) or known
            if found is None:
                raise InputError(
                    f"{self._path}: does not say where its {self.rows * self.columns} frames lie, and their borders "
                    "prove no order of rows or columns; export it again with their positions."
                )
            self._order = ORDERS[found]
            # what is known so far is of frames in another order
            self._checked[:] = False
            self._faults.clear()
        if contradicted(Seams(self._readable, self.rows, self.columns, last)):
            raise InputError(
                f"{self._path}: the {self.columns} x {self.rows} frames of its level of {self.width} x {self.height} "
                "pixels do not fit together where it says that they lie; export it again."
            )
        return found

    def box(self, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        """uint8 [height, width, 3] of a box that lies inside the level.

        Raises:
            UnreadablePixels: where a frame of it cannot be decoded.
        """
        across, down = self.tile
        pixels = np.empty((height, width, 3), np.uint8)
        for row in range(yl // down, math.ceil((yl + height) / down)):
            for column in range(xl // across, math.ceil((xl + width) / across)):
                frame = self._frame(row, column)
                left, upper = column * across - xl, row * down - yl
                part = frame[max(0, -upper) : height - upper, max(0, -left) : width - left]
                pixels[max(0, upper) :, max(0, left) :][: part.shape[0], : part.shape[1]] = part
        return pixels

    def _readable(self, row: int, column: int) -> np.ndarray | None:
        """A frame that tells where it lies, None where there is none."""
        try:
            return None if self._is_left_out(row, column) else self._frame(row, column)
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
                    if pixels.shape == (*self.tile[::-1], 3):
                        return pixels
                    fault = "its size is another one than the file says"
            # decoders and wsidicom raise errors of many kinds
            except Exception as error:
                fault = first_line(error)
            self._faults[place] = fault
        x0, y0 = (round(n * self._downsample) for n in (column * self.tile[0], row * self.tile[1]))
        raise UnreadablePixels(
            f"{self._path}: the frame of {self.tile[0]} x {self.tile[1]} pixels at level-0 pixel {x0}, {y0} cannot "
            f"be decoded ({self._faults[place]}); copy or export it again."
        )

    def _fault(self, row: int, column: int) -> str | None:
        """What is wrong with the bytes of a frame, which decoders hide."""
        if self._is_left_out(row, column):
            return None
        if self._syntax in JPEG:
            return jpeg_fault(self._encoded(row, column), None, *self.tile)
        if self._syntax in JPEG2000:
            return jpeg2000_fault(self._encoded(row, column), *self.tile)
        if self._syntax in LOSSLESS_JPEG:
            # raises an error
            simplejpeg.decode_jpeg(self._encoded(row, column), strict=True)
        return None

    def _is_left_out(self, row: int, column: int) -> bool:
        """Whether the slide has no frame there, which is glass."""
        from wsidicom.geometry import Point

        return self._image.is_sparse(
            Point(*self._stored(row, column)), self._instance.default_z, self._instance.default_path
        )

    def _encoded(self, row: int, column: int) -> bytes:
        from wsidicom.geometry import Point

        return self._image.get_encoded_tile(
            Point(*self._stored(row, column)), self._instance.default_z, self._instance.default_path
        )

    def _stored(self, row: int, column: int) -> tuple[int, int]:
        """Column and row by which wsidicom, which takes frames without places for rows, numbers a frame."""
        number = self._order(row, column, self.rows, self.columns)
        return number % self.columns, number // self.columns
