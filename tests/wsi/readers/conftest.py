"""Small slides of known pixels."""

import io

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, VLWholeSlideMicroscopyImageStorage, generate_uid

TILE = 64


@pytest.fixture(scope="session")
def picture():
    """A function: smooth pixels [height, width, 3] of a size and seed."""

    def draw(width, height, seed=0):
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
        return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))

    return draw


@pytest.fixture(scope="session")
def write_slide():
    """A function: write the levels of a pyramid as a tiled TIFF of 0.25 um/px, and return its path."""

    def write(path, levels, mpp=0.25, tile=TILE, subifds=False, **options):
        options = {"tile": (tile, tile) if tile else None, "photometric": "rgb", **options}
        if options["tile"] is None:
            options.setdefault("rowsperstrip", 16)
        scale = {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
        with tifffile.TiffWriter(path) as file:
            first = {"subifds": len(levels) - 1} if subifds else {}
            file.write(levels[0], **scale, **options, **first)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **options)
        return path

    return write


@pytest.fixture(scope="session")
def pyramid(picture):
    """A function: the levels of a picture, each half as large as the one before, by Pillow's box filter."""

    def levels(width, height, count=3, seed=0):
        images = [Image.fromarray(picture(width, height, seed))]
        while len(images) < count:
            images.append(images[-1].reduce(2))
        return [np.array(image) for image in images]

    return levels


@pytest.fixture(scope="session")
def tile_bytes():
    """A function: (offset, count) of the bytes of a tile in a TIFF's page, and where its entry of a tag lies."""

    def find(path, page=0, tile=0, tag="TileOffsets"):
        with tifffile.TiffFile(path) as file:
            entry = file.pages[page].tags[tag]
            size = {"SHORT": 2, "LONG": 4, "LONG8": 8}[entry.dtype.name]
            place = entry.valueoffset + size * tile
            return file.pages[page].dataoffsets[tile], file.pages[page].databytecounts[tile], place, size

    return find


@pytest.fixture(scope="session")
def write_dicom():
    """A function: write the levels of a pyramid of 0.25 um/px as a series of DICOM files, and return its folder."""

    def write(folder, levels, mpp=0.25, jpeg=False, **entries):
        folder.mkdir()
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

    return write


def _jpeg(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
