"""DICOM slides by wsidicom."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError, first_line

from .reader import Level, NotForThisReader, SlideReader, UnreadablePixels
from .tiff_tiles import MAX_TILE_PIXELS
from .tile_faults import jpeg2000_fault, jpeg_colours, jpeg_fault

logger = logging.getLogger(__name__)

# Of all levels; 200,000 pixels square in frames of 128 are 2.4 million.
MAX_FRAMES = 16_000_000
# A file that lacks entries is read as a completed copy.
MAX_INCOMPLETE_BYTES = 1_000_000_000
SCALELESS = "scaleless"
_JPEG = ("1.2.840.10008.1.2.4.50",)
_JPEG2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")


class DicomReader(SlideReader):
    """The first pyramid of a slide in DICOM.

    Args:
        path: a file, or the folder of a series with a file for each level.
        workers: threads of :meth:`read_batch`.

    Raises:
        NotForThisReader: where wsidicom is not installed.
        InputError: where there is no whole slide in it, or its pixels are not 8-bit colour.
    """

    backend = "dicom"

    def __init__(self, path: Path, workers: int = 1) -> None:
        try:
            import wsidicom
        except ImportError as error:
            raise NotForThisReader(f"{path}: DICOM needs wsidicom; pip install 'lightmuseg[slides]'.") from error
        self.path = path
        self.workers = workers
        self._open = ExitStack()
        try:
            with warnings.catch_warnings():
                # pydicom warns of every value that is longer than the standard has it
                warnings.simplefilter("ignore", UserWarning)
                self._opened(wsidicom.WsiDicom)
        except InputError:
            self.close()
            raise
        # wsidicom and pydicom raise errors of many kinds, some their own, of files that are damaged
        except Exception as error:
            self.close()
            raise InputError(
                f"{path}: not a DICOM slide that can be read ({first_line(error)}); export it again."
            ) from error

    def _opened(self, wsi: Any) -> None:
        completed = None if self.path.is_dir() else _completed(self.path, self._open)
        self._slide = self._open.enter_context(wsi.open(completed or self.path))
        self._levels = list(self._slide.pyramids[0])
        base = self._levels[0]
        levels, self._states = [], []
        for level in self._levels:
            image, size, tile = level.default_instance.image_data, level.size, level.tile_size
            if image.samples_per_pixel != 3 or image.bits != 8:
                raise InputError(
                    f"{self.path}: is {image.bits}-bit {image.photometric_interpretation} with "
                    f"{image.samples_per_pixel} channels, not 8-bit RGB; convert it to 8-bit RGB first."
                )
            rows, columns = math.ceil(size.height / tile.height), math.ceil(size.width / tile.width)
            if rows * columns > MAX_FRAMES or tile.width * tile.height > MAX_TILE_PIXELS:
                raise InputError(
                    f"{self.path}: says that it is {size.width} x {size.height} pixels in frames of {tile.width} x "
                    f"{tile.height}; export it again."
                )
            self._check_colours(level)
            levels.append(
                Level(
                    size.width,
                    size.height,
                    (base.size.width / size.width + base.size.height / size.height) / 2,
                    tile.width,
                    tile.height,
                )
            )
            self._states.append(np.zeros((rows, columns), bool))
        self.levels = tuple(levels)
        known = completed is None or completed.stem != SCALELESS
        self.stated_mpps = (base.mpp.width, base.mpp.height) if known else None

    def _check_colours(self, level: Any) -> None:
        from wsidicom.geometry import Point

        image, instance = level.default_instance.image_data, level.default_instance
        if str(image.transfer_syntax) not in _JPEG:
            return
        said = jpeg_colours(image.get_encoded_tile(Point(0, 0), instance.default_z, instance.default_path))
        if said is not None and (said == "RGB") != (image.photometric_interpretation == "RGB"):
            raise InputError(
                f"{self.path}: says that it is {image.photometric_interpretation}, its JPEG frames say {said}; "
                "export it again."
            )

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        box = xl, yl, width, height
        try:
            self._check(level, *box)
            pixels = self._slide.read_region((xl, yl), self._levels[level].level, (width, height), as_array=True)
        except UnreadablePixels:
            raise
        except Exception as error:
            raise self.unreadable(level, *box, error) from error
        return pixels

    def _check(self, index: int, xl: int, yl: int, width: int, height: int) -> None:
        """Look at the bytes of a box's frames, once each: decoders hide what is wrong with them."""
        from wsidicom.geometry import Point

        level, good = self._levels[index], self._states[index]
        tile, instance = level.tile_size, level.default_instance
        rows = range(yl // tile.height, math.ceil((yl + height) / tile.height))
        columns = range(xl // tile.width, math.ceil((xl + width) / tile.width))
        syntax = str(instance.image_data.transfer_syntax)
        if syntax not in (*_JPEG, *_JPEG2000):
            return
        for row, column in ((row, column) for row in rows for column in columns if not good[row, column]):
            data = instance.image_data.get_encoded_tile(Point(column, row), instance.default_z, instance.default_path)
            size = tile.width, tile.height
            fault = jpeg_fault(data, None, *size) if syntax in _JPEG else jpeg2000_fault(data, *size)
            if fault is not None:
                x0, y0 = (round(n * self.levels[index].downsample) for n in (column * size[0], row * size[1]))
                raise UnreadablePixels(
                    f"{self.path}: the frame of level {index} at level-0 pixel {x0}, {y0} cannot be decoded ({fault}); "
                    "copy or export it again."
                )
            good[row, column] = True

    def close(self) -> None:
        self._open.close()
        super().close()


def _completed(path: Path, open_: ExitStack) -> Path | None:
    """A copy of a file with what wsidicom needs and the file lacks or says wrong; None where there is nothing such."""
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.uid import VLWholeSlideMicroscopyImageStorage

    with open(path, "rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if header.file_meta.get("MediaStorageSOPClassUID") != VLWholeSlideMicroscopyImageStorage:
            return None
        said = None
        if header.file_meta.TransferSyntaxUID in _JPEG:
            # behind the pixels' tag, kind and length
            file.seek(12, os.SEEK_CUR)
            said = jpeg_colours(get_frame(file, 0, number_of_frames=int(header.get("NumberOfFrames", 1))))
    shared = header.get("SharedFunctionalGroupsSequence")
    has_scale = bool(shared and shared[0].get("PixelMeasuresSequence"))
    lacking = {"ImageType", "ImagedVolumeWidth", "ImagedVolumeHeight"} - {element.keyword for element in header}
    relabelled = said is not None and (said == "RGB") != (header.get("PhotometricInterpretation") == "RGB")
    if has_scale and not lacking and not relabelled:
        return None
    if path.stat().st_size > MAX_INCOMPLETE_BYTES:
        raise InputError(f"{path}: lacks entries of a slide's DICOM, or tells wrong colours; export it again.")
    logger.warning(
        f"{path}: lacks entries of a slide's DICOM{f', and its pixels are {said}, not what it says' * relabelled}; "
        "it is read as one level of frames in rows."
    )
    whole = pydicom.dcmread(path)
    for name in lacking:
        setattr(whole, name, ["DERIVED", "PRIMARY", "VOLUME", "NONE"] if name == "ImageType" else 1.0)
    if relabelled:
        whole.PhotometricInterpretation = {"RGB": "RGB", "YCBCR": "YBR_FULL_422"}[said]
    if "DimensionOrganizationType" not in whole and "PerFrameFunctionalGroupsSequence" not in whole:
        whole.DimensionOrganizationType = "TILED_FULL"
    if not has_scale:
        measures, group = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
        group.PixelMeasuresSequence = [measures]
        whole.SharedFunctionalGroupsSequence = [group]
    folder = Path(open_.enter_context(tempfile.TemporaryDirectory()))
    copy = folder / f"{'slide' if has_scale else SCALELESS}.dcm"
    whole.save_as(copy)
    return copy
