"""A damaged tile is named by every box that touches it, and by no other; a tile of no bytes is white."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import tifffile
from openslide import OpenSlideError
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames

from lightmuseg.errors import InputError
from lightmuseg.wsi.jpeg import jpeg_colours, jpeg_fault
from lightmuseg.wsi.jpeg2000 import jpeg2000_fault
from lightmuseg.wsi.readers import UnreadablePixels, open_slide

READERS = ("cucim", "openslide", "tifffile")
# of 64 pixels, 6 columns and 5 rows
SIZE = (384, 320)
TILE, COLUMN, ROW = 9, 3, 1
CMU = "CMU-1-Small-Region.svs"
JPEG2000 = "TCGA-CR-7395-01A-01-TS1.svs"


def middle(data, filling):
    """``data`` with its second and third quarter replaced."""
    first, last = len(data) // 4, len(data) * 3 // 4
    return data[:first] + filling(last - first) + data[last:]


DAMAGES = {
    "zeros": lambda data: bytes(len(data)),
    "zeros in it": lambda data: middle(data, bytes),
    "zeros from the middle": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "noise": lambda data: np.random.default_rng(0).bytes(len(data)),
    "noise in it": lambda data: middle(data, np.random.default_rng(1).bytes),
    "ones in it": lambda data: middle(data, lambda count: b"\xff" * count),
    "begin": lambda data: b"\0\0\0\0" + data[4:],
    "text": lambda data: (b"moved " * len(data))[: len(data)],
}


def change(path, tile_bytes, damage, page=0, tile=TILE):
    """Change a tile's bytes, or where the file says that they are."""
    offset, count, offset_place, offset_size = tile_bytes(path, page, tile)
    _, _, count_place, count_size = tile_bytes(path, page, tile, "TileByteCounts")
    with open(path, "r+b") as file:
        if damage in DAMAGES:
            file.seek(offset)
            data = DAMAGES[damage](file.read(count))
            assert len(data) == count
            file.seek(offset)
            file.write(data)
        else:
            name, value = damage
            place, size = (offset_place, offset_size) if name == "offset" else (count_place, count_size)
            file.seek(place)
            file.write(value.to_bytes(size, "little"))
    return path


def touching(corners, side, tile, column, row):
    """The boxes of a side that touch a tile."""
    x, y = column * tile, row * tile
    return {corner for corner in corners if x - side < corner[0] < x + tile and y - side < corner[1] < y + tile}


def check(path, backend, tile, column, row, level=0, columns=6):
    with open_slide(path, backend, mpp=0.25) as slide:
        side = tile // 2 + 5
        near = range(max(0, column - 2) * tile, (column + 3) * tile, tile // 2)
        corners = [(x, y) for y in range(0, (row + 3) * tile, tile // 2) for x in near]
        # twice: what is known of a tile is kept
        for _ in range(2):
            boxes = slide.read_batch(level, corners, side, side)
            damaged = {corner for corner, box in zip(corners, boxes) if isinstance(box, UnreadablePixels)}
            assert damaged == touching(corners, side, tile, column, row)
            assert 0 < len(damaged) < len(corners)
        for box in boxes:
            if isinstance(box, UnreadablePixels):
                assert str(path) in str(box)
                x0, y0 = map(int, re.search(r"level-0 pixel (\d+), (\d+)", str(box)).groups())
                downsample = slide.levels[level].downsample
                assert (column - 1) * tile <= x0 / downsample <= (column + 1) * tile
                assert (row - 1) * tile <= y0 / downsample <= (row + 1) * tile
        with pytest.raises(UnreadablePixels):
            slide.read(level, column * tile, row * tile, 1, 1)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("compression", ["jpeg", "adobe_deflate"])
def test_damaged_tile_is_named(tmp_path, pyramid, write_slide, tile_bytes, compression, backend, damage):
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE), compression=compression)
    check(change(path, tile_bytes, damage), backend, 64, COLUMN, ROW)


@pytest.mark.parametrize("where", [("offset", 2**31), ("count", 2**31 - 1), ("offset", 0)])
@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("compression", ["jpeg", "adobe_deflate"])
def test_tile_that_lies_outside_the_file_is_named(
    tmp_path, pyramid, write_slide, tile_bytes, compression, backend, where
):
    # large enough that its tags count bytes in four
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE), compression=compression)
    if where[0] == "count":
        _, _, _, size = tile_bytes(path, tile=TILE, tag="TileByteCounts")
        where = ("count", min(where[1], 2 ** (8 * size) - 1))
    change(path, tile_bytes, where)
    if where[0] == "count" and where[1] < path.stat().st_size:
        pytest.skip("the tile's count has no room for more than the file's bytes")
    check(path, backend, 64, COLUMN, ROW)
    if where[1] == 2**31:
        with open_slide(path, backend) as slide, pytest.raises(UnreadablePixels, match="file ends before"):
            slide.read(0, COLUMN * 64, ROW * 64, 9, 9)


@pytest.mark.parametrize("count", [0, 1000])
@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("compression", [None, "jpeg"])
def test_tile_with_fewer_bytes_or_none_at_its_place(
    tmp_path, pyramid, write_slide, tile_bytes, backend, compression, count
):
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE), compression=compression)
    check(change(path, tile_bytes, ("count", count)), backend, 64, COLUMN, ROW)


@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("backend", READERS)
def test_damage_in_a_level_is_in_that_level_only(tmp_path, pyramid, write_slide, tile_bytes, backend, level):
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE), compression="jpeg")
    change(path, tile_bytes, "zeros", page=level, tile=1)
    with open_slide(path, backend) as slide:
        for other in {0, 1, 2} - {level}:
            slide.read(other, 0, 0, slide.levels[other].width, slide.levels[other].height)
        with pytest.raises(UnreadablePixels, match=rf"level {level} at level-0 pixel {64 << level}, 0 "):
            slide.read(level, 64, 0, 10, 10)
        slide.read(level, 0, 0, 64, 64)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize(("name", "tile", "columns"), [(CMU, 240, 10), (JPEG2000, 256, 18)])
def test_damaged_tile_of_a_real_slide_is_named(data, tmp_path, tile_bytes, name, tile, columns, backend, damage):
    path = tmp_path / name
    shutil.copy(data / "slides" / name, path)
    row, column = 2, 4
    change(path, tile_bytes, damage, tile=row * columns + column)
    check(path, backend, tile, column, row)


@pytest.mark.parametrize("backend", READERS)
@pytest.mark.parametrize("compression", ["jpeg", "adobe_deflate"])
def test_tiles_of_no_bytes_are_white(tmp_path, pyramid, write_slide, tile_bytes, compression, backend):
    levels = pyramid(*SIZE)
    path = write_slide(tmp_path / "slide.tif", levels, compression=compression)
    with open_slide(path, backend) as slide:
        expected = slide.read(0, 0, 0, *SIZE).copy()
    for tile in (0, TILE, 29):
        change(path, tile_bytes, ("count", 0), tile=tile)
        change(path, tile_bytes, ("offset", 0), tile=tile)
        row, column = divmod(tile, 6)
        expected[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64] = 255
    with open_slide(path, backend) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *SIZE), expected)
        for x, y in ((-10, -10), (150, 40), (200, 70), (300, 250)):
            box = slide.read(0, x, y, 90, 80)
            part = expected[max(0, y) : y + 80, max(0, x) : x + 90]
            assert np.array_equal(box[max(0, -y) :, max(0, -x) :][: part.shape[0], : part.shape[1]], part)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_frame_of_dicom_is_named(tmp_path, pyramid, write_dicom, damage):
    folder = write_dicom(tmp_path / "series", pyramid(*SIZE, count=1), jpeg=True)
    path = folder / "0.dcm"
    dataset = pydicom.dcmread(path)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=dataset.NumberOfFrames))
    frames[TILE] = DAMAGES[damage](frames[TILE])
    dataset.PixelData = encapsulate(frames)
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(path)
    check(path, "dicom", 64, COLUMN, ROW)


def encoded(tmp_path, mode="RGB", **options):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pixels[20:50, 20:50] = 250
    path = tmp_path / "tile.jpg"
    Image.fromarray(pixels).convert(mode).save(path, "JPEG", **options)
    return path.read_bytes()


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 5}, {"quality": 100},
                                     {"subsampling": 0}, {"comment": b"a" * 500}, {"restart_marker_blocks": 2},
                                     {"exif": b"Exif\0\0" + b"\xff" * 90}])  # fmt: skip
def test_whole_jpegs_of_all_kinds_have_no_fault(tmp_path, options):
    data = encoded(tmp_path, **options)
    assert jpeg_fault(data, None, 64, 64) is None
    for rest in (b"\0", b"\0" * 700, b"noise"):
        assert jpeg_fault(data + rest, None, 64, 64) is None
    assert jpeg_fault(data, None, 64, 65) is not None
    for end in range(len(data)):
        assert jpeg_fault(data[:end], None, 64, 64) is not None


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}])
def test_flat_jpegs_have_no_fault(tmp_path, value, options):
    """With tables of their own they are mostly zeros."""
    path = tmp_path / "flat.jpg"
    Image.new("RGB", (512, 512), (value,) * 3).save(path, "JPEG", **options)
    assert jpeg_fault(path.read_bytes(), None, 512, 512) is None


@pytest.mark.parametrize("name", [CMU, JPEG2000])
def test_tiles_of_real_slides_have_no_fault(data, name):
    with tifffile.TiffFile(data / "slides" / name) as file:
        for page in file.pages:
            if not page.is_tiled:
                continue
            for offset, count in zip(page.dataoffsets, page.databytecounts):
                file.filehandle.seek(offset)
                tile = file.filehandle.read(count)
                size = page.tilewidth, page.tilelength
                fault = jpeg_fault(tile, page.jpegtables, *size) if name == CMU else jpeg2000_fault(tile, *size)
                assert fault is None


def test_colours_that_a_jpeg_says_it_has(tmp_path):
    assert jpeg_colours(encoded(tmp_path)) == "YCBCR"
    assert jpeg_colours(encoded(tmp_path, keep_rgb=True)) == "RGB"
    bare = encoded(tmp_path, subsampling=2).replace(b"JFIF", b"NONE")
    assert jpeg_colours(bare) == "YCBCR"
    assert jpeg_colours(encoded(tmp_path, subsampling=0).replace(b"JFIF", b"NONE")) is None


def test_slide_whose_tiles_are_all_damaged_opens_and_names_them(tmp_path, pyramid, write_slide):
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE), compression="adobe_deflate")
    with tifffile.TiffFile(path) as file:
        places = [place for page in file.pages for place in zip(page.dataoffsets, page.databytecounts)]
    with open(path, "r+b") as file:
        for offset, count in places:
            file.seek(offset)
            file.write(bytes(count))
    for backend in READERS:
        with open_slide(path, backend) as slide:
            boxes = slide.read_batch(0, [(0, 0), (100, 100)], 64, 64)
            assert all(isinstance(box, InputError) for box in boxes)


def test_handle_that_an_error_spoilt_is_replaced(tmp_path, pyramid, write_slide, tile_bytes):
    """After an error OpenSlide gives errors only, in every thread."""
    levels = pyramid(*SIZE)
    path = write_slide(tmp_path / "slide.tif", levels, compression="lzw")
    change(path, tile_bytes, "ones in it")
    with open_slide(path, "openslide", workers=2) as slide:
        with pytest.raises(OpenSlideError):
            slide._slide.read_region((COLUMN * 64, ROW * 64), 0, (64, 64))
        for _ in range(2):
            good, damaged = slide.read_batch(0, [(0, 128), (COLUMN * 64, ROW * 64)], 64, 64)
            assert np.array_equal(good, levels[0][128:192, :64])
            assert isinstance(damaged, UnreadablePixels)


def test_what_openslide_leaves_transparent_is_white(tmp_path, pyramid, write_slide):
    path = write_slide(tmp_path / "slide.tif", pyramid(*SIZE))
    pixels = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    pixels.putpixel((1, 0), (10, 20, 30, 0))
    with open_slide(path, "openslide") as slide:
        slide._slide = SimpleNamespace(read_region=lambda *box: pixels, close=lambda: None)
        assert slide.read(0, 0, 0, 2, 1).tolist() == [[[10, 20, 30], [255, 255, 255]]]
