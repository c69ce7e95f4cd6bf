"""A level of a DICOM slide as the grid of its frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from lightmuseg.errors import InputError, first_line

from ..jpeg import jpeg_colours, jpeg_fault
from ..jpeg2000 import jpeg2000_colours, jpeg2000_fault
from ..tile_grid import MAX_TILE_PIXELS
from .frame_order import ORDERS, Seams, contradicted, proven_order
from .reader import Level, UnreadablePixels

# Of all levels; 200,000 pixels square in frames of 128 are 2.4 million.
MAX_FRAMES = 16_000_000
JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
LOSSLESS_JPEG_SYNTAXES = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG2000_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
# Frames, from all over a level, of which one must be readable.
TRIED = 64


class FrameGrid:
    """The frames of a level, checked once each and cut to boxes; ``stored`` and ``base`` are wsidicom's levels.

    Raises:
        InputError: where its pixels are not 8-bit RGB, or the grid cannot be.
    """

    def __init__(self, path: Path, stored: Any, base: Any) -> None:
        self._path = path
        self._instance = stored.default_instance
        self._image = image = self._instance.image_data
        width, height, across, down = *stored.size.to_tuple(), *stored.tile_size.to_tuple()
        self.level = Level(width, height, (base.size.width / width + base.size.height / height) / 2, across, down)
        self._syntax = str(image.transfer_syntax)
        if image.samples_per_pixel != 3 or image.bits != 8:
            raise InputError(
                f"{path}: is {image.bits}-bit {image.photometric_interpretation} with "
                f"{image.samples_per_pixel} channels, not 8-bit RGB; convert it to 8-bit RGB first."
            )
        own = self._instance.default_path, self._instance.default_z
        alike = [one for one in stored.instances.values() if own[0] in one.optical_paths and own[1] in one.focal_planes]
        if len(alike) > 1:
            raise InputError(
                f"{path}: its series has {len(alike)} pictures of {width} x {height} pixels; move all but one away."
            )
        self._rows, self._columns = map(len, self.level.tiles_of(0, 0, width, height))
        if self._rows * self._columns > MAX_FRAMES or across * down > MAX_TILE_PIXELS:
            raise InputError(
                f"{path}: says that it is {width} x {height} pixels in frames of {across} x {down}; export it again."
            )
        self._order = ORDERS["rows"]
        self._checked = np.zeros((self._rows, self._columns), bool)
        self._refuse_places_off_the_grid()
        self._refuse_other_colours()

    def _refuse_other_colours(self) -> None:
        """Decoders give what is stored; only JPEG and JPEG 2000 say how their colours are to be turned into RGB."""
        stated, of_frames = self._image.photometric_interpretation, None
        if self._syntax in JPEG_SYNTAXES:
            of_frames = jpeg_colours(self._first_encoded())
            wrong = "PARTIAL" in stated or (of_frames is not None and (of_frames == "RGB") != (stated == "RGB"))
        elif self._syntax in JPEG2000_SYNTAXES and stated in ("YBR_ICT", "YBR_RCT"):
            of_frames = "RGB" if jpeg2000_colours(self._first_encoded()) == "RGB" else None
            wrong = of_frames is not None
        else:
            wrong = stated != "RGB"
        if wrong:
            raise InputError(
                f"{self._path}: says that it is {stated}"
                f"{f', its frames say {of_frames}' if of_frames else ', which is not turned into RGB'}; convert it to "
                "RGB, or export it again."
            )

    def _first_encoded(self) -> bytes:
        """The bytes of the first frame that is there, as far as is looked."""
        places = (divmod(number, self._columns) for number in range(min(self._rows * self._columns, 1000)))
        there = (place for place in places if not self._is_left_out(*place))
        return next((self._image.get_encoded_tile(*self._at(*place)) for place in there), b"")

    def _refuse_places_off_the_grid(self) -> None:
        """wsidicom takes a place between two frames for the one before, and of two frames at a place the last."""
        for dataset in self._instance.datasets:
            if dataset.states_tiled_full or dataset.tile_type.name != "SPARSE":
                continue
            places = dataset.frame_positions
            across, down = self.level.tile_width, self.level.tile_height
            if ((places.columns - 1) % across).any() or ((places.rows - 1) % down).any():
                raise InputError(
                    f"{self._path}: its frames of {across} x {down} pixels overlap or lie off their grid; export it "
                    "again with frames side by side."
                )
            parts = [places.columns, places.rows, places.z_offsets, places.optical_path_identifiers]
            lie = list(zip(*(part.tolist() for part in parts if part is not None)))
            if len(set(lie)) < len(lie):
                raise InputError(
                    f"{self._path}: {len(lie) - len(set(lie))} of its frames lie upon others; export it again."
                )

    def refuse_unreadable(self) -> None:
        """Raise an InputError where no frame can be decoded, as far as is tried."""
        count = self._rows * self._columns
        places = np.random.default_rng(0).choice(count, min(count, TRIED), replace=False)
        faults = []
        for place in places:
            pixels, fault = self._decoded(*divmod(int(place), self._columns))
            if pixels is not None:
                return
            faults.append(fault)
        raise InputError(
            f"{self._path}: none of its frames that were tried can be decoded ({faults[0]}); export it again."
        )

    def prove_order(self, orderless: bool, known: str | None = None) -> str | None:
        """The one of ORDERS that the seams prove of an ``orderless`` file; of another None, and its own is compared.

        Where the seams prove nothing, ``known`` holds, that of a finer level.

        Raises:
            InputError: where the seams prove none, or another one than the file has.
        """
        level, rows, columns = self.level, self._rows, self._columns
        last = level.width - (columns - 1) * level.tile_width, level.height - (rows - 1) * level.tile_height
        found = None
        if orderless:
            found = proven_order(Seams(self._readable, rows, columns, last), rows, columns) or known
            if found is None:
                raise InputError(
                    f"{self._path}: does not say where its {rows * columns} frames lie, and their borders prove no "
                    "order of rows or columns; export it again with their positions."
                )
            self._order = ORDERS[found]
            # what is known so far is of frames in another order
            self._checked[:] = False
        if contradicted(Seams(self._readable, rows, columns, last)):
            raise InputError(
                f"{self._path}: the {columns} x {rows} frames of its level of {level.width} x {level.height} "
                "pixels do not fit together where it says that they lie; export it again."
            )
        return found

    def frame(self, row: int, column: int) -> np.ndarray:
        """uint8 [height, width, 3]; UnreadablePixels where it cannot be decoded."""
        frame, fault = self._decoded(row, column)
        if frame is None:
            across, down = self.level.tile_width, self.level.tile_height
            x0, y0 = (round(n * self.level.downsample) for n in (column * across, row * down))
            raise UnreadablePixels(
                f"{self._path}: the frame of {across} x {down} pixels at level-0 pixel {x0}, {y0} cannot be decoded "
                f"({fault}); copy or export it again."
            )
        return frame

    def _readable(self, row: int, column: int) -> np.ndarray | None:
        """A frame that tells where it lies, None where there is none."""
        return None if self._is_left_out(row, column) else self._decoded(row, column)[0]

    def _decoded(self, row: int, column: int) -> tuple[np.ndarray | None, str]:
        """uint8 [frame's height, width, 3] of a place in the picture, or None and why."""
        try:
            fault = "" if self._checked[row, column] else self._fault(row, column)
            if not fault:
                self._checked[row, column] = True
                pixels = self._image.get_decoded_tile(*self._at(row, column))
                if pixels.shape == (self.level.tile_height, self.level.tile_width, 3):
                    return pixels, ""
                fault = "its size is another one than the file says"
        # decoders and wsidicom raise errors of many kinds
        except Exception as error:
            fault = first_line(error)
        return None, fault

    def _fault(self, row: int, column: int) -> str | None:
        """What is wrong with the bytes of a frame, which decoders hide."""
        check = next((check for syntaxes, check in _CHECKS.items() if self._syntax in syntaxes), None)
        if check is None or self._is_left_out(row, column):
            return None
        data = self._image.get_encoded_tile(*self._at(row, column))
        return check(data, self.level.tile_width, self.level.tile_height)

    def _is_left_out(self, row: int, column: int) -> bool:
        """Whether the slide has no frame there, which is glass."""
        return self._image.is_sparse(*self._at(row, column))

    def _at(self, row: int, column: int) -> tuple[Any, float, str]:
        """By what wsidicom, which takes frames without places for rows, knows a frame."""
        from wsidicom.geometry import Point

        number = self._order(row, column, self._rows, self._columns)
        place = Point(number % self._columns, number // self._columns)
        return place, self._instance.default_z, self._instance.default_path


def _lossless_jpeg_fault(data: bytes, *_: int) -> None:
    # its error says why
    simplejpeg.decode_jpeg(data, strict=True)


# What says of each transfer syntax why a frame of a width and height is not whole.
_CHECKS: dict[tuple[str, ...], Callable[[bytes, int, int], str | None]] = {
    JPEG_SYNTAXES: lambda data, width, height: jpeg_fault(data, None, width, height),
    JPEG2000_SYNTAXES: jpeg2000_fault,
    LOSSLESS_JPEG_SYNTAXES: _lossless_jpeg_fault,
}
