"""The class map as a DICOM segmentation that lies over its DICOM slide."""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightmuseg import __version__
from lightmuseg.classes import ANY_TISSUE, CONCEPTS, palette_of
from lightmuseg.errors import InputError, first_line
from lightmuseg.wsi.readers.dicom_series import WHOLE_SLIDE, series_files

from .segmented import SegmentedSlide

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from pydicom import Dataset

TILE = 512
# The length of pixel data is a 32-bit number, and even.
MAX_BYTES = 2**32 - 2
# Without these the place of the slide's pixels, or the slide itself, cannot be referred to.
NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SOPInstanceUID",
    "FrameOfReferenceUID",
    "ImageOrientationSlide",
    "TotalPixelMatrixOriginSequence",
)
# May be empty in DICOM, so some slides leave them out.
OPTIONAL = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write a class map as DICOM SEG, BINARY, one segment a class, in the slide's frame of reference.

    Tiles are TILED_FULL, which needs no description of each frame: memory stays that of a row of tiles, and tiles
    without a class are holes in the file where the file system has them. UIDs follow from the map and the slide, dates
    are the slide's. Pixels that could not be read belong to no segment.

    Raises:
        InputError: where the slide is not in DICOM or does not say where its pixels lie, or the map is too large.

    Reference: DICOM PS3.3, A.51 and C.8.20; TILED_FULL is C.7.6.17.3.
    """
    class_map = slide.class_map
    tags = require(slide.path, class_map)
    rows, columns = -(-class_map.height // TILE), -(-class_map.width // TILE)
    frames = len(class_map.class_names) * rows * columns
    length = frames * TILE * TILE // 8
    header = _header(tags, class_map, _identity(tags, class_map))
    header.NumberOfFrames = frames
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = class_map.height, class_map.width
    del header.PixelData
    with open(path, "wb") as file:
        header.save_as(file, enforce_file_format=True)
        # tag 7FE0,0010, its kind OB, and its length
        file.write(b"\xe0\x7f\x10\x00OB\x00\x00" + length.to_bytes(4, "little"))
        start = file.tell()
        file.truncate(start + length)
        for row, band in enumerate(class_map.bands(TILE)):
            for column in range(columns):
                tile = band[:, column * TILE : (column + 1) * TILE]
                for segment in range(len(class_map.class_names)):
                    mask = tile == segment + 1
                    if mask.any():
                        frame = np.zeros((TILE, TILE), dtype=bool)
                        frame[: mask.shape[0], : mask.shape[1]] = mask
                        place = (segment * rows + row) * columns + column
                        file.seek(start + place * TILE * TILE // 8)
                        file.write(np.packbits(frame, bitorder="little").tobytes())


def require(source: Path, class_map: Any) -> Dataset:
    """The tags of a slide that a map's segmentation refers to, if all is there that :func:`write` needs.

    Args:
        source: the slide, a DICOM file or the folder of its series.
        class_map: width, height, downsample and class_names of the map to come.

    Raises:
        InputError: where a segmentation of it could not be written.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise InputError(f"{source}: DICOM SEG needs highdicom; pip install 'lightmuseg[slides]'.") from error
    slide = _slide(source, class_map)
    rows, columns = -(-class_map.height // TILE), -(-class_map.width // TILE)
    if len(class_map.class_names) * rows * columns * TILE * TILE // 8 > MAX_BYTES:
        raise InputError(
            f"{source}: {class_map.width} x {class_map.height} pixels of {len(class_map.class_names)} classes are more "
            f"than the {MAX_BYTES / 1e9:.1f} GB of a DICOM file; choose a coarser --output-mpp."
        )
    try:
        _header(copy.deepcopy(slide), class_map, "")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{source}: its DICOM tags cannot be referred to ({first_line(error)}); "
            "leave out --dicom-seg, or convert the slide to DICOM again."
        ) from error
    return slide


def _slide(source: Path, class_map: Any) -> Dataset:
    """The tags of the slide's finest level, which the map lies on."""
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError

    levels = []
    for path in _files(source):
        try:
            tags = dcmread(path, stop_before_pixels=True)
            # decodes the tags too, which may lie where the file is cut short
            missing = [name for name in NEEDED if not tags.get(name)]
            missing += [] if _measures(tags).get("PixelSpacing") else ["PixelSpacing"]
        except (InvalidDicomError, BytesLengthException, ValueError, struct.error):
            continue
        except OSError as error:
            # without a number it is pydicom's, of a file that ends within its tags
            if error.errno is not None:
                raise
            continue
        kind = tags.get("ImageType") or ["ORIGINAL", "PRIMARY", "VOLUME"]
        if tags.get("SOPClassUID") == WHOLE_SLIDE and "VOLUME" in kind:
            levels.append((tags, missing))
    if not levels:
        raise InputError(
            f"{source}: is no DICOM whole-slide image, and a DICOM segmentation refers to one; "
            "leave out --dicom-seg, or convert the slide to DICOM first."
        )
    slide, missing = max(levels, key=lambda level: level[0].get("TotalPixelMatrixColumns", 0))
    if missing:
        raise InputError(
            f"{source}: lacks {', '.join(missing)}, by which a DICOM segmentation refers to its slide; "
            "leave out --dicom-seg, or convert the slide to DICOM again."
        )
    size0 = slide.get("TotalPixelMatrixColumns", 0), slide.get("TotalPixelMatrixRows", 0)
    map0 = class_map.width * class_map.downsample, class_map.height * class_map.downsample
    if max(abs(a - b) for a, b in zip(size0, map0, strict=True)) > class_map.downsample:
        raise InputError(
            f"{source}: {slide.SOPInstanceUID} of {size0[0]} x {size0[1]} pixels is not the level that was segmented, "
            f"of {map0[0]:.0f} x {map0[1]:.0f}; name the folder of the whole series as the slide."
        )
    return slide


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.iterdir() if path.is_file())
    try:
        return series_files(source)
    except InputError:
        # what is wrong with it is said of itself
        return [source]


def _header(slide: Dataset, class_map: Any, identity: str) -> Segmentation:
    """A segmentation of one empty tile, whose size and pixels are still to be put in."""
    import highdicom as hd

    measures = _measures(slide)
    spacing = [float(side) for side in measures.PixelSpacing]
    for name in OPTIONAL:
        if name not in slide:
            setattr(slide, name, None)
    # as large as the stand-in for the map, or highdicom refuses a map that lies pixel on pixel
    slide.TotalPixelMatrixRows = slide.TotalPixelMatrixColumns = TILE
    date = slide.get("ContentDate") or slide.StudyDate or "19700101"
    time = slide.get("ContentTime") or slide.StudyTime or "000000"
    header = hd.seg.Segmentation(
        source_images=[slide],
        pixel_array=np.zeros((TILE, TILE), dtype=np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=_segments(class_map.class_names),
        series_instance_uid=_uid(identity, "series"),
        series_number=1,
        sop_instance_uid=_uid(identity, "instance"),
        instance_number=1,
        manufacturer="LightMuSeg",
        manufacturer_model_name="LightMuSeg",
        software_versions=__version__,
        device_serial_number="1",
        content_label="CLASSES",
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=[side * class_map.downsample for side in spacing],
            slice_thickness=measures.get("SliceThickness", 0.001),
        ),
        plane_positions=[_origin(slide, spacing, class_map.downsample)],
        dimension_organization_type=hd.DimensionOrganizationTypeValues.TILED_FULL,
        tile_pixel_array=True,
        tile_size=(TILE, TILE),
        omit_empty_frames=False,
    )
    # the moment of writing, which would make every file another
    del header.InstanceCreationDate, header.InstanceCreationTime
    del header.ContributingEquipmentSequence[-1].ContributionDateTime
    header.DimensionOrganizationSequence[0].DimensionOrganizationUID = _uid(identity, "dimensions")
    return header


def _measures(slide: Dataset) -> Dataset:
    from pydicom import Dataset

    shared = slide.get("SharedFunctionalGroupsSequence") or [Dataset()]
    return (shared[0].get("PixelMeasuresSequence") or [Dataset()])[0]


def _origin(slide: Dataset, spacing: Sequence[float], downsample: float) -> Any:
    """Where the middle of the map's first pixel lies, from where that of the slide's first pixel lies."""
    import highdicom as hd

    origin = slide.TotalPixelMatrixOriginSequence[0]
    corner = np.array(
        [
            float(origin.XOffsetInSlideCoordinateSystem),
            float(origin.YOffsetInSlideCoordinateSystem),
            float(origin.get("ZOffsetInSlideCoordinateSystem") or 0),
        ]
    )
    along_row, along_column = np.array(slide.ImageOrientationSlide, dtype=float).reshape(2, 3)
    row_spacing, column_spacing = spacing
    offset = (downsample - 1) / 2
    place = corner + offset * (along_row * column_spacing + along_column * row_spacing)
    return hd.PlanePositionSequence(
        coordinate_system=hd.CoordinateSystemNames.SLIDE, image_position=place.tolist(), pixel_matrix_position=(1, 1)
    )


def _segments(class_names: Sequence[str]) -> list[Any]:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    algorithm = hd.AlgorithmIdentificationSequence(
        name="LightMuSeg", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    segments = []
    for number, (name, colour) in enumerate(zip(class_names, palette_of(class_names)[1:], strict=True), 1):
        category, _, kind, _ = CONCEPTS.get(name, ANY_TISSUE)
        segments.append(
            hd.seg.SegmentDescription(
                segment_number=number,
                segment_label=name[:64],
                segmented_property_category=getattr(codes.SCT, category),
                segmented_property_type=getattr(codes.SCT, kind),
                algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                display_color=hd.color.CIELabColor.from_rgb(*colour),
            )
        )
    return segments


def _identity(slide: Dataset, class_map: Any) -> str:
    """A hash of all that the file says, for its UIDs."""
    digest = hashlib.sha256(
        f"{__version__} {slide.SOPInstanceUID} {class_map.width} {class_map.height} {class_map.downsample} "
        f"{class_map.class_names}".encode()
    )
    for band in class_map.bands(TILE):
        digest.update(np.ascontiguousarray(band))
    return digest.hexdigest()


def _uid(identity: str, part: str) -> str:
    digest = hashlib.sha256(f"{identity} {part}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
