"""Whatever of a tile's bytes or place cannot be is unreadable, and what is whole never is."""

import io
import shutil

import cv2
import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from PIL import Image, ImageFile

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_codes, read_rgb
from lightmuseg.wsi.jpeg import jpeg_fault, strict_jpeg_fault
from lightmuseg.wsi.readers import UnreadablePixels, open_slide
from lightmuseg.wsi.readers.tile_checks import blank_tiles, shared_tiles

SIZE, TILE, SIDE = (384, 320), 9, 64
CODECS = ("lzw", "packbits", "zstd", "lzma", "webp", "jpegxl", "png")


def unreadable(path, backend="auto", level=0, **options):
    """The tiles (column, row) of a level that cannot be read."""
    with open_slide(path, backend, mpp=0.25, **options) as slide:
        at, found = slide.levels[level], set()
        for y in range(0, at.height, SIDE):
            for x in range(0, at.width, SIDE):
                (box,) = slide.read_batch(level, [(x, y)], min(SIDE, at.width - x), min(SIDE, at.height - y))
                if isinstance(box, UnreadablePixels):
                    assert str(path) in str(box)
                    found.add((x // SIDE, y // SIDE))
        return found


def overwrite(path, place, data):
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(data)


def whole_jpegs(pixels):
    """JPEG as Pillow, OpenCV and libjpeg-turbo by imagecodecs and simplejpeg write it."""
    for options in ({}, {"optimize": True}, {"progressive": True}, {"quality": 1}, {"quality": 100},
                    {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"subsampling": "4:4:4"},
                    {"subsampling": "4:2:2"}, {"subsampling": "4:2:0"}, {"keep_rgb": True}):  # fmt: skip
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, "JPEG", **options)
            yield file.getvalue()
    for subsampling in ("444", "422", "420", "440", "411"):
        yield simplejpeg.encode_jpeg(pixels, colorsubsampling=subsampling)
        yield imagecodecs.jpeg8_encode(pixels, subsampling=subsampling)
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 4]):
        yield cv2.imencode(".jpg", pixels, options)[1].tobytes()


@pytest.mark.parametrize("size", [(64, 64), (61, 37)])
def test_whole_jpegs_of_many_encoders_have_no_fault(picture, size):
    for pixels in (picture(*size), np.full((*size[::-1], 3), 243, np.uint8)):
        for data in whole_jpegs(pixels):
            for rest in (b"", b"\0", bytes(700), b"\xff\xd9", b"noise"):
                assert jpeg_fault(data + rest, None, *size) is None


def test_jpeg_of_which_bytes_are_missing_or_changed_has_a_fault(picture):
    """Of less than a block the rest may be a whole picture of other colours, which nothing in JPEG shows."""
    data = next(whole_jpegs(picture(64, 64)))
    scan = data.index(b"\xff\xda") + 14
    assert all(strict_jpeg_fault(data[:at], 64, 64) for at in range(scan, len(data), 3))
    places = range(scan, len(data) - 502, 3)
    assert np.mean([strict_jpeg_fault(data[:at] + data[at + 500 :], 64, 64) is not None for at in places]) > 0.9
    assert jpeg_fault(data, None, 64, 64, channels=1) is not None
    assert jpeg_fault(data, None, 64, 64, channels=3) is None


def test_tiles_without_the_tables_that_they_need(data):
    assert len(unreadable(data / "slide_cases" / "no_jpeg_tables.tif")) == 64


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile"])
@pytest.mark.parametrize(
    ("name", "tiles"),
    [("jpeg-precision-bit.svs", 20), ("tile-count-0.svs", 16), ("tile-zeroed-is-glass.svs", 16),
     ("jpeg-tile-64-bytes-noise.tif", 4)],
)  # fmt: skip
def test_damage_that_libraries_hide(data, name, tiles, backend):
    assert len(unreadable(data / "slide_cases" / "damaged" / name, backend)) == tiles


@pytest.mark.parametrize("codec", CODECS)
def test_whole_tiles_of_other_codecs_are_read(tmp_path, picture, write_slide, codec):
    pixels = picture(*SIZE)
    pixels[100:250, 100:300] = 240
    pixels[150:220, 150:250] = 0
    options = {"compressionargs": {"lossless": True}} if codec in ("webp", "jpegxl") else {}
    path = write_slide(tmp_path / "slide.tif", [pixels], compression=codec, **options)
    assert unreadable(path) == set()
    with open_slide(path) as slide:
        assert np.array_equal(slide.read(0, 0, 0, *SIZE), pixels)


@pytest.mark.parametrize("damage", ["zeros", "noise", "shorter"])
@pytest.mark.parametrize("codec", [*CODECS, "adobe_deflate"])
def test_damaged_tile_of_other_codecs(tmp_path, picture, write_slide, tile_bytes, codec, damage):
    path = write_slide(tmp_path / "slide.tif", [picture(*SIZE)], compression=codec)
    if (codec, damage) == ("zstd", "noise"):
        pytest.skip("it keeps such pixels as they are, without a check sum")
    offset, count, _, _ = tile_bytes(path, tile=TILE)
    _, _, place, size = tile_bytes(path, tile=TILE, tag="TileByteCounts")
    if damage == "shorter":
        overwrite(path, place, (count * 2 // 3).to_bytes(size, "little"))
    else:
        filling = bytes(600) if damage == "zeros" else np.random.default_rng(0).bytes(600)
        overwrite(path, offset + count // 3, filling[: count // 3])
    assert unreadable(path) == {(3, 1)}


def test_compression_of_which_damage_would_not_be_seen_is_refused(tmp_path, picture, write_slide):
    path = write_slide(tmp_path / "slide.tif", [picture(*SIZE)], compression="jpegxr")
    for backend in ("auto", "tifffile"):
        with pytest.raises(InputError, match="JPEGXR, damage would not be seen"):
            open_slide(path, backend)


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile"])
@pytest.mark.parametrize("length", [512, 4096])
def test_lost_blocks_of_tiles_without_compression(tmp_path, picture, write_slide, tile_bytes, backend, length):
    path = write_slide(tmp_path / "slide.tif", [np.maximum(picture(*SIZE), 30)])
    offset, count, _, _ = tile_bytes(path, tile=TILE)
    overwrite(path, offset + 3000, bytes(length))
    overwrite(path, tile_bytes(path, tile=0)[0], bytes(count))
    assert unreadable(path, backend) == {(0, 0), (3, 1)}


def test_black_areas_without_compression_are_read(tmp_path, picture, write_slide):
    pixels = picture(*SIZE)[:300, :350]
    pixels[:30] = pixels[100:150, 40:250] = pixels[:, 200:220] = 0
    path = write_slide(tmp_path / "slide.tif", [pixels])
    with open_slide(path, "tifffile") as slide:
        assert np.array_equal(slide.read(0, 0, 0, 350, 300), pixels)


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile"])
def test_tiles_at_one_offset_are_unreadable_unless_they_are_plain(tmp_path, picture, write_slide, tile_bytes, backend):
    pixels = picture(*SIZE)
    pixels[:64] = 240
    path = write_slide(tmp_path / "slide.tif", [pixels], compression="jpeg")
    places = {
        tag: [tile_bytes(path, tile=tile, tag=tag) for tile in range(30)] for tag in ("TileOffsets", "TileByteCounts")
    }
    for tag, column in (("TileOffsets", 0), ("TileByteCounts", 1)):
        for tile, other in ((1, 0), (2, 0), (3, 0), (20, 9)):
            overwrite(path, places[tag][tile][2], places[tag][other][column].to_bytes(places[tag][tile][3], "little"))
    assert unreadable(path, backend) == {(3, 1), (2, 3)}
    with open_slide(path, backend) as slide:
        for _ in range(2):
            with pytest.raises(UnreadablePixels, match="another tile's"):
                slide.read(0, 192, 64, 9, 9)
            assert (abs(slide.read(0, 0, 0, 384, 64).astype(int) - 240) <= 1).all()


def test_tile_that_reaches_over_others_is_the_wrong_one(tmp_path, picture, write_slide, tile_bytes):
    path = write_slide(tmp_path / "slide.tif", [picture(*SIZE)], compression="jpeg")
    count = tile_bytes(path, tile=TILE)[1]
    _, _, place, size = tile_bytes(path, tile=TILE, tag="TileByteCounts")
    overwrite(path, place, (count * 4).to_bytes(size, "little"))
    assert unreadable(path) == {(3, 1)}


def by_pairs(offsets, counts):
    ends = offsets + counts
    over = (offsets[:, None] < ends) & (offsets < ends[:, None]) & (counts[:, None] > 0) & (counts > 0)
    np.fill_diagonal(over, False)
    others = over.sum(1)
    return np.array([n > 1 or (n == 1 and others[over[i].argmax()] <= 1) for i, n in enumerate(others)])


def test_shared_tiles_are_those_that_all_pairs_show():
    rng = np.random.default_rng(0)
    for _ in range(300):
        offsets, counts = rng.integers(0, 200, 30), rng.integers(0, 12, 30)
        assert np.array_equal(shared_tiles(offsets, counts), by_pairs(offsets, counts))


def test_tiles_without_bytes_that_a_writer_left_out_are_blank():
    offsets, counts = np.array([8, 50, 50, 70, 70, 70, 90, 0]), np.array([42, 0, 20, 0, 0, 20, 0, 0])
    assert blank_tiles(offsets, counts, 90).tolist() == [False, True, False, True, True, False, True, True]
    assert blank_tiles(offsets, counts, 91).tolist() == [False, True, False, True, True, False, False, True]


def test_damaged_tile_of_a_slide_that_only_openslide_reads(data, tmp_path):
    """Of the finest level, whose area begins at 1600, 2000."""
    path = tmp_path / "slide.scn"
    shutil.copy(data / "slide_cases" / "leica_offset.scn", path)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[1].dataoffsets[5], file.pages[1].databytecounts[5]
    overwrite(path, offset + count // 2, np.random.default_rng(0).bytes(300))
    with open_slide(path, mpp=0.25) as slide:
        start = (1600, 2000) if slide.levels[0].width == 4096 else (0, 0)
        x0, y0 = start[0] + 256, start[1] + 256
        for corner, good in (((0, 0), False), ((255, 255), False), ((-9, 0), True), ((256, 0), True), ((0, 256), True)):
            box = (x0 + corner[0], y0 + corner[1], 9, 9)
            if good:
                slide.read(0, *box)
            else:
                with pytest.raises(UnreadablePixels, match="page 1 at level-0 pixel 1856, 2256"):
                    slide.read(0, *box)
        slide.read(1, x0 // 2, y0 // 2, 100, 100)


@pytest.mark.parametrize(
    ("tag", "value"), [("TileWidth", 2**31 - 1), ("TileLength", 2**31 - 1), ("TileByteCounts", 2**31)]
)
def test_tags_of_which_openslide_ends_the_process_are_refused(data, tmp_path, tag, value):
    path = tmp_path / "slide.scn"
    shutil.copy(data / "slide_cases" / "leica_offset.scn", path)
    with tifffile.TiffFile(path) as file:
        place = file.pages[2].tags[tag].valueoffset
    overwrite(path, place, value.to_bytes(4, "little"))
    with pytest.raises(InputError, match="page 2"):
        open_slide(path, "openslide", mpp=0.25)


def test_damaged_picture_is_refused(data, tmp_path, picture, monkeypatch):
    """Also where another library has told Pillow to let it pass."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    bad = data / "slide_cases" / "damaged" / "jpeg-100-bytes-missing.jpg"
    with pytest.raises(InputError, match="jpeg-100-bytes-missing.jpg: cannot be read whole"):
        open_slide(bad, mpp=0.25)
    with pytest.raises(InputError, match="jpeg-100-bytes-missing.jpg"):
        read_rgb(bad)
    file = io.BytesIO()
    Image.fromarray(picture(200, 100)).save(file, "PNG")
    for damaged in (file.getvalue()[:-400], file.getvalue().replace(file.getvalue()[2000:2004], b"aaaa")):
        (tmp_path / "slide.png").write_bytes(damaged)
        for read in (read_rgb, read_codes):
            with pytest.raises(InputError, match="slide.png"):
                read(tmp_path / "slide.png")
    # which is the other library's own matter
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_whole_pictures_are_read(tmp_path, picture):
    for data in whole_jpegs(picture(61, 37)):
        (tmp_path / "a.jpg").write_bytes(data)
        with Image.open(tmp_path / "a.jpg") as image:
            expected = np.asarray(image.convert("RGB")) if image.mode == "RGB" else None
        if expected is not None:
            assert np.array_equal(read_rgb(tmp_path / "a.jpg"), expected)
