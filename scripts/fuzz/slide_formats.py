"""Small slides of real pixels in every format that is read, for the fuzz of slides."""

from __future__ import annotations

import io
import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian

# a corner of CMU-1-Small-Region.svs that is full of tissue, and the sides of the slides made of it
SOURCE, CORNER, SIDE, TILE = "slides/CMU-1-Small-Region.svs", (700, 500), 512, 128
MPP = 0.25


@dataclass(frozen=True)
class Format:
    """A kind of slide: its name, the end of its files' names, what makes one, and whether its codec has a check sum."""

    name: str
    suffix: str
    make: Callable[[Path, Path], None]
    checked: bool = False


def pixels_of(data: Path) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3] of real tissue."""
    (x, y), page = CORNER, tifffile.imread(data / SOURCE, key=0)
    return np.ascontiguousarray(page[y : y + SIDE, x : x + SIDE])


def _tiff(**options: object) -> Callable[[Path, Path], None]:
    def make(data: Path, path: Path) -> None:
        pixels = pixels_of(data)
        half = np.asarray(Image.fromarray(pixels).resize((SIDE // 2, SIDE // 2), Image.Resampling.BOX))
        common = {"photometric": "rgb", "tile": (TILE, TILE), "resolutionunit": "CENTIMETER", **options}
        with tifffile.TiffWriter(path) as file:
            file.write(pixels, resolution=(1e4 / MPP,) * 2, metadata=None, **common)
            file.write(half, resolution=(5e3 / MPP,) * 2, metadata=None, subfiletype=1, **common)

    return make


def _ome(data: Path, path: Path) -> None:
    pixels = pixels_of(data)
    said = {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}
    common = {"photometric": "rgb", "tile": (TILE, TILE), "compression": "jpeg"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(pixels, subifds=1, metadata=said, **common)
        file.write(np.ascontiguousarray(pixels[::2, ::2]), subfiletype=1, **common)


def _strips(data: Path, path: Path) -> None:
    options = {"resolution": (1e4 / MPP,) * 2, "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, pixels_of(data), photometric="rgb", rowsperstrip=64, **options)


def _picture(data: Path, path: Path) -> None:
    Image.fromarray(pixels_of(data)).save(path, quality=85)


def _aperio_jpeg2000(data: Path, path: Path) -> None:
    """Some tiles of a real slide, as they are encoded."""
    with tifffile.TiffFile(data / "slides/TCGA-CR-7395-01A-01-TS1.svs") as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        tiles = []
        for row, column in itertools.product(range(4, 7), range(across // 2, across // 2 + 3)):
            file.filehandle.seek(page.dataoffsets[row * across + column])
            tiles.append(file.filehandle.read(page.databytecounts[row * across + column]))
        with tifffile.TiffWriter(path) as target:
            target.write(
                iter(tiles), shape=(3 * page.tilelength, 3 * page.tilewidth, 3), dtype=np.uint8, metadata=None,
                tile=(page.tilelength, page.tilewidth), compression=page.compression, photometric=page.photometric,
                description=page.description, software=False,
            )  # fmt: skip


def _copy(name: str) -> Callable[[Path, Path], None]:
    return lambda data, path: shutil.copyfile(data / name, path)


def _dicom(compress: Callable[[pydicom.Dataset], None]) -> Callable[[Path, Path], None]:
    def make(data: Path, path: Path) -> None:
        slide = pydicom.dcmread(data / "slide_cases/dicom_two_slides/b_tissue.dcm")
        compress(slide)
        slide.save_as(path, enforce_file_format=True)

    return make


def _uncompressed(slide: pydicom.Dataset) -> None:
    slide.PixelData = np.ascontiguousarray(slide.pixel_array).tobytes()
    slide.PhotometricInterpretation, slide.PlanarConfiguration = "RGB", 0
    slide.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slide["PixelData"].is_undefined_length = False


def _run_lengths(slide: pydicom.Dataset) -> None:
    _uncompressed(slide)
    slide.compress(pydicom.uid.RLELossless, generate_instance_uid=False)


def _jpeg2000(slide: pydicom.Dataset) -> None:
    frames = slide.pixel_array
    slide.PhotometricInterpretation, slide.PlanarConfiguration = "RGB", 0
    slide.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    slide.PixelData = encapsulate([_codestream(frame) for frame in frames])
    slide["PixelData"].is_undefined_length = True


def _codestream(frame: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(frame).save(stream, "JPEG2000", no_jp2=True, mct=0)
    return stream.getvalue()


FORMATS = (
    Format("jpeg", ".tif", _tiff(compression="jpeg", compressionargs={"level": 85})),
    Format("jpeg 4:2:0", ".tif", _tiff(compression="jpeg", compressionargs={"level": 75}, subsampling=(2, 2))),
    Format("jpeg2000", ".tif", _tiff(compression="jpeg2000")),
    Format("deflate", ".tif", _tiff(compression="deflate"), checked=True),
    Format("deflate, predictor", ".tif", _tiff(compression="deflate", predictor=True), checked=True),
    Format("lzw", ".tif", _tiff(compression="lzw")),
    Format("packbits", ".tif", _tiff(compression="packbits")),
    Format("zstd", ".tif", _tiff(compression="zstd")),
    Format("webp", ".tif", _tiff(compression="webp")),
    Format("uncompressed", ".tif", _tiff()),
    Format("strips", ".tif", _strips),
    Format("ome", ".ome.tif", _ome),
    Format("aperio jpeg", ".svs", _copy(SOURCE)),
    Format("aperio jpeg2000", ".svs", _aperio_jpeg2000),
    Format("scn", ".scn", _copy("slide_cases/leica_offset.scn")),
    Format("dicom jpeg", ".dcm", _copy("slide_cases/dicom_two_slides/b_tissue.dcm")),
    Format("dicom jpeg2000", ".dcm", _dicom(_jpeg2000)),
    Format("dicom rle", ".dcm", _dicom(_run_lengths)),
    Format("dicom uncompressed", ".dcm", _dicom(_uncompressed)),
    Format("png", ".png", _picture, checked=True),
    Format("jpeg picture", ".jpg", _picture),
)
