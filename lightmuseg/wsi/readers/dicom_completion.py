"""What wsidicom needs and some DICOM slides lack, put into a copy."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lightmuseg.errors import InputError

from .dicom_frames import JPEG
from .dicom_series import PER_FRAME
from .tile_faults import jpeg_colours

logger = logging.getLogger(__name__)

# A file that lacks entries is read as a completed copy.
MAX_INCOMPLETE_BYTES = 1_000_000_000
# of the sequence with an item for each frame, and of a frame's place, which the first item stands for
_PER_FRAME_TAG, _PLACE_TAG = b"\x00\x52\x30\x92", b"\x48\x00\x1a\x02"
_START = 65536


@dataclass(frozen=True)
class Part:
    """A file of a slide as wsidicom can open it.

    Attributes:
        path: of the file or its copy.
        columns: of its picture, in pixels.
        kind: its colours and transfer syntax.
        scaleless: whether it does not say its um per pixel.
        orderless: whether it does not say where its frames lie.
    """

    path: Path
    columns: int
    kind: str
    scaleless: bool = False
    orderless: bool = False


def completed(path: Path, open_: ExitStack) -> Part:
    """A file of a slide, or a copy of it with what it lacks or says wrong.

    Args:
        path: of the file.
        open_: by whose end the copy is deleted.

    Raises:
        InputError: where it is too large to be copied.
    """
    import pydicom
    from pydicom.encaps import get_frame
    from pydicom.filereader import read_partial

    with open(path, "rb") as file:
        header = read_partial(file, lambda tag, *_: tag >= PER_FRAME)
        full, start = header.get("DimensionOrganizationType") == "TILED_FULL", file.read(_START)
        orderless = not full and not (start[:4] == _PER_FRAME_TAG and _PLACE_TAG in start)
        said = None
        if header.file_meta.TransferSyntaxUID in JPEG and (full or orderless):
            file.seek(0)
            pydicom.dcmread(file, stop_before_pixels=True)
            # behind the pixels' tag, kind and length
            file.seek(12, os.SEEK_CUR)
            said = jpeg_colours(get_frame(file, 0, number_of_frames=int(header.get("NumberOfFrames", 1))))
    columns = int(header.get("TotalPixelMatrixColumns") or 0)
    shared = header.get("SharedFunctionalGroupsSequence")
    scaleless = not (shared and shared[0].get("PixelMeasuresSequence"))
    lacking = {"ImageType", "ImagedVolumeWidth", "ImagedVolumeHeight"} - {element.keyword for element in header}
    relabelled = said is not None and (said == "RGB") != (header.get("PhotometricInterpretation") == "RGB")
    kind = f"{header.get('PhotometricInterpretation')} in {header.file_meta.TransferSyntaxUID.name}"
    if not (scaleless or orderless or lacking or relabelled):
        return Part(path, columns, kind)
    if path.stat().st_size > MAX_INCOMPLETE_BYTES:
        raise InputError(f"{path}: lacks entries of a slide's DICOM, or tells wrong colours; export it again.")
    logger.warning(
        f"{path}: lacks entries of a slide's DICOM{f', and its pixels are {said}, not what it says' * relabelled}; "
        f"a completed copy is read{', its frames in the order that their borders prove' * orderless}."
    )
    whole = pydicom.dcmread(path)
    for name in lacking:
        setattr(whole, name, ["DERIVED", "PRIMARY", "VOLUME", "NONE"] if name == "ImageType" else 1.0)
    if relabelled:
        whole.PhotometricInterpretation = {"RGB": "RGB", "YCBCR": "YBR_FULL_422"}[said]
    if orderless:
        whole.DimensionOrganizationType = "TILED_FULL"
        if "PerFrameFunctionalGroupsSequence" in whole:
            del whole.PerFrameFunctionalGroupsSequence
    if scaleless:
        measures, group = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing, measures.SliceThickness = [1, 1], 1
        group.PixelMeasuresSequence = [measures]
        whole.SharedFunctionalGroupsSequence = [group]
    copy = Path(open_.enter_context(tempfile.TemporaryDirectory())) / "level.dcm"
    whole.save_as(copy)
    return Part(copy, columns, kind, scaleless, orderless)
