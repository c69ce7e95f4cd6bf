"""Small slides of known pixels."""

import dicom_slide
import numpy as np
import pytest
import tifffile
from PIL import Image

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
    return dicom_slide.write_dicom
