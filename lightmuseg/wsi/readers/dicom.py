"""DICOM slides by wsidicom."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np

from lightmuseg.errors import InputError, first_line

from .dicom_completion import completed
from .dicom_frames import FrameGrid
from .dicom_series import series_files
from .reader import NotForThisReader, SlideReader, assembled

logger = logging.getLogger(__name__)


class DicomReader(SlideReader):
    """The largest pyramid of a slide in DICOM, of any of its files or the folder of one slide.

    A slide is refused of which no frame can be decoded, or whose frames lie at places that are not told and not to be
    seen, or told wrong.
    """

    backend, package = "dicom", "wsidicom"

    def _opened(self) -> None:
        try:
            import wsidicom
        except ImportError as error:
            raise NotForThisReader(f"{self.path}: DICOM needs wsidicom; pip install 'lightmuseg[slides]'.") from error
        try:
            with warnings.catch_warnings():
                # pydicom warns of every value that is longer than the standard has it
                warnings.simplefilter("ignore", UserWarning)
                self._open_series(wsidicom.WsiDicom)
        except InputError:
            raise
        # wsidicom and pydicom raise errors of many kinds, some their own, of files that are damaged
        except Exception as error:
            raise InputError(
                f"{self.path}: not a DICOM slide that can be read ({first_line(error)}); export it again."
            ) from error

    def _open_series(self, wsi: Any) -> None:
        from wsidicom.errors import WsiDicomNotFoundError

        files = series_files(self.path)
        parts = [completed(path, self._open) for path in files]
        try:
            slide = self._open.enter_context(wsi.open([part.path for part in parts]))
        except WsiDicomNotFoundError as error:
            raise InputError(
                f"{self.path}: is stored as {parts[0].kind}, which is not read; "
                "convert it to RGB, uncompressed or in JPEG."
            ) from error
        if len(slide.pyramids) > 1:
            logger.warning(f"{self.path}: holds {len(slide.pyramids)} pyramids of one slide; only the largest is read.")
        pyramid = list(slide.pyramids[0])
        base = pyramid[0]
        if base.size.width < max(part.columns for part in parts):
            raise InputError(f"{self.path}: its finest level, {files[0].name}, cannot be opened; export it again.")
        for width, height in (level.size.to_tuple() for level in pyramid):
            # other sizes than a pyramid's by more than rounding
            if abs(width * base.size.height / (height * base.size.width) - 1) > 0.02 + 2 / min(width, height):
                raise InputError(
                    f"{self.path}: its series has pictures of {base.size.width} x {base.size.height} and of "
                    f"{width} x {height} pixels, which are not one slide; move one of them away."
                )
        self._grids = [FrameGrid(self.path, level, base) for level in pyramid]
        self.levels = tuple(grid.level for grid in self._grids)
        self._grids[0].refuse_unreadable()
        orderless, order = {part.columns for part in parts if part.orderless}, None
        for grid in self._grids:
            order = grid.prove_order(grid.level.width in orderless, order) or order
        self.stated_mpps = None if any(part.scaleless for part in parts) else (base.mpp.width, base.mpp.height)

    def _decoded(self, level: int, xl: int, yl: int, width: int, height: int) -> np.ndarray:
        return assembled(self.levels[level], (xl, yl, width, height), self._grids[level].frame)
