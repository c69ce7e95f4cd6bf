import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.slides.reader import read_level0

PLENTY = 120_000_000
CMU = "CMU-1-Small-Region.svs"
# Its file does not say its um per pixel.
WITHOUT_MPP = "TCGA-CR-7395-01A-01-TS1.svs"


def read(path, mpp=None, target_mpp=0.25, max_pixels=PLENTY):
    return read_level0(Path(path), mpp, target_mpp, max_pixels)


def refused(path, *words):
    return pytest.raises(InputError, match=".*".join(map(re.escape, (str(path), *words))))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(1, 256, (300, 420, 3), dtype=np.uint8)


def write_tiff(path, pixels, per_unit=(40_000, 40_000), unit="CENTIMETER", tile=(128, 128), **options):
    options = {"photometric": "rgb", **options}
    tifffile.imwrite(path, pixels, tile=tile, resolution=per_unit, resolutionunit=unit, **options)
    return path


def test_svs_is_read_as_another_decoder_does(data):
    read_pixels, mpp = read(data / "slides" / CMU)
    assert mpp == pytest.approx(0.499)
    assert read_pixels.dtype == np.uint8
    assert read_pixels.shape == (2967, 2220, 3)
    with Image.open(data / "slides" / CMU) as image:
        other = np.asarray(image.convert("RGB"))
    assert np.abs(read_pixels.astype(int) - other).max() <= 2


def test_slide_without_mpp_is_refused_and_read_with_one(data):
    path = data / "slides" / WITHOUT_MPP
    with refused(path, "--mpp"):
        read(path)
    read_pixels, mpp = read(path, 0.5)
    assert mpp == 0.5
    assert read_pixels.shape == (3567, 4443, 3)
    assert read_pixels.std() > 10


@pytest.mark.parametrize(
    ("per_unit", "unit", "expected"), [(40_000, "CENTIMETER", 0.25), (50_800, "INCH", 0.5), (20_000, "CENTIMETER", 0.5)]
)
def test_tiff_resolution_gives_mpp(tmp_path, pixels, per_unit, unit, expected):
    path = write_tiff(tmp_path / "Schnitt ä 1.tif", pixels, (per_unit, per_unit), unit)
    read_pixels, mpp = read(path)
    assert mpp == pytest.approx(expected)
    assert np.array_equal(read_pixels, pixels)


def test_tiff_without_resolution_unit_is_refused(tmp_path, pixels):
    path = write_tiff(tmp_path / "slide.tif", pixels, unit="NONE")
    with refused(path, "--mpp"):
        read(path)


def test_screen_resolution_is_no_mpp(tmp_path, pixels):
    path = write_tiff(tmp_path / "slide.tif", pixels, (72, 72), "INCH")
    with refused(path, "--mpp"):
        read(path)


def test_given_mpp_goes_before_the_files(tmp_path, pixels):
    assert read(write_tiff(tmp_path / "slide.tif", pixels), 0.3)[1] == 0.3


def aperio(mpp):
    return {"description": f"Aperio Image Library v11\n420x300|AppMag = 20|MPP = {mpp}", "metadata": None}


def test_aperio_mpp_is_read(tmp_path, pixels):
    assert read(write_tiff(tmp_path / "slide.svs", pixels, unit="NONE", **aperio(0.2521)))[1] == pytest.approx(0.2521)


@pytest.mark.parametrize("entry", ["unknown", "", "0", "-0.5"])
def test_useless_aperio_mpp_is_refused(tmp_path, pixels, entry):
    path = write_tiff(tmp_path / "slide.svs", pixels, unit="NONE", **aperio(entry))
    with refused(path, "--mpp"):
        read(path)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf"), 1000])
@pytest.mark.parametrize("ending", ["tif", "png"])
def test_absurd_mpp_is_refused_with_its_value(tmp_path, pixels, ending, mpp):
    path = tmp_path / f"slide.{ending}"
    write_tiff(path, pixels) if ending == "tif" else Image.fromarray(pixels).save(path)
    with refused(path, str(mpp), "--mpp"):
        read(path, mpp)


def test_png_needs_mpp_and_is_read_exactly(tmp_path, pixels):
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    with refused(path, "--mpp"):
        read(path)
    read_pixels, mpp = read(path, 0.4)
    assert mpp == 0.4
    assert np.array_equal(read_pixels, pixels)


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_limit_counts_the_pixels_after_resampling(tmp_path, pixels, ending):
    path = tmp_path / f"slide.{ending}"
    write_tiff(path, pixels) if ending == "tif" else Image.fromarray(pixels).save(path)
    size = 300 * 420
    assert read(path, 0.25, 0.25, size)[0].shape == (300, 420, 3)
    assert read(path, 0.25, 0.5, size)[0].shape == (300, 420, 3)
    with refused(path, "420 x 300"):
        read(path, 0.25, 0.25, size - 1)
    with refused(path, "420 x 300"):
        read(path, 0.5, 0.25, 4 * size - 1)


def test_too_large_a_slide_is_refused_before_it_is_read(tmp_path):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    path = tmp_path / "large.png"
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9000, 9000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with refused(path, "9000 x 9000"):
        read(path, 0.25, max_pixels=80_000_000)
    with refused(path, "cannot be read whole"):
        read(path, 0.25, max_pixels=82_000_000)


@pytest.mark.parametrize("percent", [0, 1, 30, 60])
def test_truncated_svs_is_refused(data, tmp_path, percent):
    content = (data / "slides" / CMU).read_bytes()
    path = tmp_path / "cut.svs"
    path.write_bytes(content[: len(content) * percent // 100])
    with refused(path):
        read(path, 0.5)


@pytest.mark.parametrize("percent", [10, 50, 90, 99])
@pytest.mark.parametrize("tile", [(128, 128), None])
def test_truncated_tiff_is_refused(tmp_path, pixels, tile, percent):
    path = write_tiff(tmp_path / "cut.tif", pixels, tile=tile)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    with refused(path):
        read(path)


@pytest.mark.parametrize("ending", ["svs", "tif", "png", "jpg"])
def test_text_file_is_refused(tmp_path, ending):
    path = tmp_path / f"text.{ending}"
    path.write_text("not a slide")
    with refused(path):
        read(path, 0.5)


@pytest.mark.parametrize("ending", ["svs", "png"])
def test_missing_file_and_folder_are_refused(tmp_path, ending):
    with refused(tmp_path / f"nowhere.{ending}", "no such file"):
        read(tmp_path / f"nowhere.{ending}")
    (tmp_path / f"folder.{ending}").mkdir()
    with refused(tmp_path / f"folder.{ending}"):
        read(tmp_path / f"folder.{ending}")


@pytest.mark.parametrize("name", ["slide.ndpi", "slide.mrxs", "slide"])
def test_unsupported_ending_is_refused_with_the_supported_ones(tmp_path, name):
    (tmp_path / name).touch()
    with refused(tmp_path / name, ".svs", ".png"):
        read(tmp_path / name, 0.5)


@pytest.mark.parametrize("tile", [(128, 128), None])
def test_16_bit_tiff_is_refused(tmp_path, pixels, tile):
    path = write_tiff(tmp_path / "deep.tif", pixels.astype(np.uint16) * 16, tile=tile)
    with refused(path, "8-bit RGB"):
        read(path)


def test_grey_tiff_is_refused(tmp_path, pixels):
    path = write_tiff(tmp_path / "grey.tif", pixels[..., 0].copy(), photometric="minisblack")
    with refused(path, "8-bit RGB"):
        read(path)


def test_transparent_tiff_is_never_read_in_other_colours(tmp_path, pixels):
    alpha = np.full((300, 420, 1), 100, dtype=np.uint8)
    path = write_tiff(tmp_path / "clear.tif", np.concatenate([pixels, alpha], axis=2), extrasamples=["unassalpha"])
    with refused(path):
        read(path)
