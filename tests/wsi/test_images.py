import contextlib
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_codes, read_rgb

GREY, RGB, RGBA = 0, 2, 6


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_png(path, samples, colour_type, bits, extra=b""):
    """A PNG of samples [H, W] or [H, W, C] with 4, 8 or 16 bits each, made without an image library."""
    height, width = samples.shape[:2]
    rows = samples.reshape(height, -1)
    if bits == 4:
        rows = rows[:, ::2] << 4 | rows[:, 1::2]
    rows = rows.astype(">u2" if bits == 16 else "u1")
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )
    return path


def noise(*shape, end=256):
    return np.random.default_rng(0).integers(0, end, shape, dtype=np.uint16)


def refused(path, *words):
    """The context that expects an InputError naming the file, and these words."""
    return pytest.raises(InputError, match=".*".join(map(re.escape, (str(path), *words))))


@pytest.fixture
def png(tmp_path):
    return tmp_path / "größe 1.png"


def test_rgb_is_read_exactly_with_rows_first(png):
    pixels = noise(5, 8, 3)
    write_png(png, pixels, RGB, 8)
    read = read_rgb(png)
    assert read.dtype == np.uint8
    assert np.array_equal(read, pixels)


def test_pixels_stand_at_row_and_column(png):
    picture = Image.new("RGB", (70, 30))
    picture.putpixel((60, 10), (1, 2, 3))
    picture.save(png)
    assert read_rgb(png)[10, 60].tolist() == [1, 2, 3]


def test_palette_picture_gets_its_colours(png):
    indices = noise(6, 7, end=3).astype(np.uint8)
    colours = np.array([[200, 10, 30], [0, 255, 7], [90, 80, 70]], dtype=np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette(colours.tobytes())
    picture.save(png)
    assert np.array_equal(read_rgb(png), colours[indices])


def test_opaque_rgba_becomes_its_rgb(png):
    pixels = noise(6, 7, 4)
    pixels[..., 3] = 255
    write_png(png, pixels, RGBA, 8)
    assert np.array_equal(read_rgb(png), pixels[..., :3])


def test_one_transparent_pixel_is_refused(png):
    pixels = noise(6, 7, 4)
    pixels[..., 3] = 255
    pixels[2, 3, 3] = 254
    write_png(png, pixels, RGBA, 8)
    with refused(png, "transparent"):
        read_rgb(png)


def test_transparent_palette_entry_is_refused(png):
    picture = Image.fromarray(noise(6, 7, end=3).astype(np.uint8)).convert("P")
    picture.save(png, transparency=1)
    with refused(png, "transparent"):
        read_rgb(png)


def test_transparent_colour_of_an_rgb_picture_is_refused(png):
    write_png(png, np.full((6, 7, 3), 9, dtype=np.uint16), RGB, 8, chunk(b"tRNS", struct.pack(">HHH", 9, 9, 9)))
    with refused(png, "transparent"):
        read_rgb(png)


@pytest.mark.parametrize(("channels", "colour_type"), [(3, RGB), (4, RGBA)])
def test_16_bit_colour_png_is_refused(png, channels, colour_type):
    write_png(png, noise(6, 8, channels, end=4096), colour_type, 16)
    with refused(png, "16-bit colour"):
        read_rgb(png)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_colour_tiff_is_refused(tmp_path, planar, compression):
    pixels = noise(6, 8, 3, end=4096) if planar == "contig" else noise(3, 6, 8, end=4096)
    path = tmp_path / "deep.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig=planar, compression=compression)
    with refused(path):
        read_rgb(path)


def test_16_bit_grey_is_no_picture(png):
    write_png(png, noise(6, 8, end=4096), GREY, 16)
    with refused(png, "grey"):
        read_rgb(png)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
def test_floating_point_is_refused(tmp_path, read):
    path = tmp_path / "float.tif"
    tifffile.imwrite(path, noise(6, 8).astype(np.float32))
    with refused(path, "floating point"):
        read(path)


@pytest.mark.parametrize(("mode", "ending", "word"), [("CMYK", "jpg", "CMYK"), ("L", "png", "grey"), ("LA", "png", "")])
def test_other_colour_modes_are_no_pictures(tmp_path, mode, ending, word):
    path = tmp_path / f"picture.{ending}"
    Image.new(mode, (9, 8)).save(path)
    with refused(path, word):
        read_rgb(path)


def test_mask_is_read_exactly_with_rows_first(png):
    codes = noise(5, 8)
    write_png(png, codes, GREY, 8)
    read = read_codes(png)
    assert read.dtype == np.uint8
    assert np.array_equal(read, codes)


def test_palette_mask_keeps_its_indices(png):
    indices = noise(6, 7, end=22).astype(np.uint8)
    mask = Image.fromarray(indices).convert("P")
    mask.putpalette([255 - value for value in range(256)] * 3)
    mask.save(png)
    assert np.array_equal(read_codes(png), indices)


def test_1_bit_mask_is_0_and_1(png):
    marked = noise(6, 7, end=2).astype(bool)
    Image.fromarray(marked).save(png)
    assert Image.open(png).mode == "1"
    assert np.array_equal(read_codes(png), marked)


def test_4_bit_mask_is_never_read_as_other_codes(png):
    codes = noise(6, 8, end=16)
    write_png(png, codes, GREY, 4)
    read = codes
    with contextlib.suppress(InputError):
        read = read_codes(png)
    assert np.array_equal(read, codes)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bit_mask_of_small_codes_is_accepted(tmp_path, ending):
    codes = noise(6, 8, end=256)
    path = tmp_path / f"mask.{ending}"
    write_png(path, codes, GREY, 16) if ending == "png" else tifffile.imwrite(path, codes)
    read = read_codes(path)
    assert read.dtype == np.uint8
    assert np.array_equal(read, codes)


def test_mask_value_above_255_is_refused(png):
    codes = np.zeros((6, 8), dtype=np.uint16)
    codes[3, 4] = 256
    write_png(png, codes, GREY, 16)
    with refused(png, "256"):
        read_codes(png)


def test_colour_mask_is_refused(png):
    write_png(png, noise(6, 8, 3), RGB, 8)
    with refused(png, "RGB"):
        read_codes(png)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_truncated_file_is_refused_at_any_length(tmp_path, read, ending):
    whole = tmp_path / f"whole.{ending}"
    pixels = noise(60, 50, 3) if read is read_rgb else noise(60, 50)
    Image.fromarray(pixels.astype(np.uint8)).save(whole)
    content = whole.read_bytes()
    path = tmp_path / f"cut.{ending}"
    for percent in range(0, 100, 5):
        path.write_bytes(content[: len(content) * percent // 100])
        with refused(path):
            read(path)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
def test_text_file_is_refused(png, read):
    png.write_text("not a picture")
    with refused(png):
        read(png)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
def test_folder_is_refused(png, read):
    png.mkdir()
    with refused(png):
        read(png)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
def test_missing_file_is_refused(png, read):
    with refused(png, "no such file"):
        read(png)


def test_decompression_bomb_is_refused(png):
    write_png(png, noise(1, 1, 3), RGB, 8)
    content = png.read_bytes()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 100_000, 100_000, 8, RGB, 0, 0, 0))
    png.write_bytes(content[:8] + header + content[8 + len(header) :])
    with refused(png, "too many pixels", "make it smaller"):
        read_rgb(png)


@pytest.mark.parametrize("read", [read_rgb, read_codes])
def test_png_with_an_empty_part_behind_its_pixels_is_refused(png, read):
    write_png(png, noise(3, 4, 3) if read is read_rgb else noise(3, 4), RGB if read is read_rgb else GREY, 8)
    end = chunk(b"IEND", b"")
    png.write_bytes(png.read_bytes().removesuffix(end) + chunk(b"iCCP", b"") + end)
    with refused(png):
        read(png)
