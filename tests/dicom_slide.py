"""Slides in DICOM of known pixels."""

import io

import numpy as np
import pydicom
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

TILE = 64


def write_dicom(folder, levels, mpp=0.25, jpeg=False, **entries):
    """Write the levels of a pyramid as a series of DICOM files, and return its folder."""
    folder.mkdir(parents=True)
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    for number, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        padded = np.pad(pixels, ((0, -height % TILE), (0, -width % TILE), (0, 0)), mode="edge")
        frames = padded.reshape(len(padded) // TILE, TILE, -1, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
        spacing = [mpp / 1000 * levels[0].shape[axis] / pixels.shape[axis] for axis in (0, 1)]
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = VLWholeSlideMicroscopyImageStorage
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
        measures, group = pydicom.Dataset(), pydicom.Dataset()
        measures.PixelSpacing, measures.SliceThickness = spacing, 0.001
        group.PixelMeasuresSequence = [measures]
        all_entries = uids | {
            "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "InstanceNumber": number + 1, "Modality": "SM",
            "Rows": TILE, "Columns": TILE, "NumberOfFrames": len(frames), "TotalPixelMatrixColumns": width,
            "TotalPixelMatrixRows": height, "TotalPixelMatrixFocalPlanes": 1, "SamplesPerPixel": 3,
            "PlanarConfiguration": 0, "PhotometricInterpretation": "YBR_FULL_422" if jpeg else "RGB",
            "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0,
            "DimensionOrganizationType": "TILED_FULL", "ImageOrientationSlide": [0, 1, 0, 1, 0, 0],
            "ImagedVolumeWidth": 1.0, "ImagedVolumeHeight": 1.0, "ImagedVolumeDepth": 0.001,
            "SharedFunctionalGroupsSequence": [group],
            "PixelData": encapsulate([_jpeg(frame) for frame in frames]) if jpeg else frames.tobytes(),
        } | entries  # fmt: skip
        for name, value in all_entries.items():
            setattr(dataset, name, value)
        if jpeg:
            dataset["PixelData"].is_undefined_length = True
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def _jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
