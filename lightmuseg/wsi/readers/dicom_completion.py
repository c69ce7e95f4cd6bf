"""What wsidicom needs and some DICOM slides lack, put into a copy."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from lightmuseg.errors import InputError

from ..jpeg import jpeg_colours
from .dicom_frames import JPEG_SYNTAXES
from .dicom_series import PER_FRAME

logger = logging.getLogger(__name__)

# A file that lacks entries is read as a completed copy.
MAX_INCOMPLETE_BYTES = 1_000_000_000
# of the sequence with an item for each frame, and of a frame's place, which the first item stands for
_PER_FRAME_TAG, _PLACE_TAG = b"\x00\x52\x30\x92", b"\x48\x00\x1a\x02"
_START = 65536


class Part(NamedTuple):
    """A file of a slide as wsidicom can open it: the file or its copy, its columns, its colours and transfer syntax."""

    path: Path
    columns: int
    kind: str
    # whether it does not say its um per pixel, and where its frames lie
    scaleless: bool = False
    orderless: bool = False


def completed(path: Path, stack: ExitStack) -> Part:
    """A file of a slide, or a copy with what it lacks or says wrong, deleted with the stack."""
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.filereader import read_partial

    with open(path, "rb") as file:
        header = read_partial(file, lambda tag, *_: tag >= PER_FRAME)
        full, start = header.get("DimensionOrganizationType") == "TILED_FULL", file.read(_START)
        orderless = not full and not (start[:4] == _PER_FRAME_TAG and _PLACE_TAG in start)
        colours = None
        if header.file_meta.TransferSyntaxUID in JPEG_SYNTAXES and (full or orderless):
            file.seek(0)
            pydicom.dcmread(file, stop_before_pixels=True)
            # behind the pixels' tag, kind and length
            file.seek(12, os.SEEK_CUR)
            colours = jpeg_colours(get_frame(file, 0, number_of_frames=int(header.get("NumberOfFrames", 1))))
    columns = int(header.get("TotalPixelMatrixColumns") or 0)
    shared = header.get("SharedFunctionalGroupsSequence")
    scaleless = not (shared and shared[0].get("PixelMeasuresSequence"))
    lacking = {"ImageType", "ImagedVolumeWidth", "ImagedVolumeHeight"} - {element.keyword for element in header}
    relabelled = colours is not None and (colours == "RGB") != (header.get("PhotometricInterpretation") == "RGB")
    kind = f"{header.get('PhotometricInterpretation')} in {header.file_meta.TransferSyntaxUID.name}"
    if not (scaleless or orderless or lacking or relabelled):
        return Part(path, columns, kind)
    if path.stat().st_size > MAX_INCOMPLETE_BYTES:
        raise InputError(f"{path}: lacks entries of a slide's DICOM, or tells wrong colours; export it again.")
    logger.warning(
        f"{path}: lacks entries of a slide's DICOM{f', and its pixels are {colours}, not what it says' * relabelled}; "
        f"a completed copy is read{', its frames in the order that their borders prove' * orderless}."
    )
    whole = pydicom.dcmread(path)
    for name in lacking:
        setattr(whole, name, ["DERIVED", "PRIMARY", "VOLUME", "NONE"] if name == "ImageType" else 1.0)
    if relabelled:
        whole.PhotometricInterpretation = {"RGB": "RGB", "YCBCR": "YBR_FULL_422"}[colours]
    if orderless:
        whole.DimensionOrganizationType = "TILED_FULL"
        if "PerFrameFunctionalGroupsSequence" in whole:
            del whole.PerFrameFunctionalGroupsSequence
    if scaleless:
        measures, group = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
        group.PixelMeasuresSequence = [measures]
        whole.SharedFunctionalGroupsSequence = [group]
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "level.dcm"
    whole.save_as(copy)
    return Part(copy, columns, kind, scaleless, orderless)
