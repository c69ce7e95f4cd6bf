"""What is no slide, or a broken one, is refused in one line that names it; nothing hangs or fills the memory."""

import io
import multiprocessing
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import open_slide

CMU = "CMU-1-Small-Region.svs"
JPEG2000 = "TCGA-CR-7395-01A-01-TS1.svs"
DICOM = "pathml_small_dicom.dcm"
DICOM_SMALL = "highdicom_sm_image.dcm"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 256, (200, 300, 3), dtype=np.uint8)


def read_whole(path, mpp=0.25, **options):
    """All pixels of a slide by level, of large levels the left upper part."""
    with open_slide(path, mpp=mpp, **options) as slide:
        sizes = [(min(level.width, 5000), min(level.height, 5000)) for level in slide.levels]
        return [slide.read(index, 0, 0, *size) for index, size in enumerate(sizes)]


def refuse(path, *words, **options):
    with pytest.raises(InputError) as caught:
        read_whole(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message.strip()
    for word in words:
        assert word in message


def tiff(path, pixels=PIXELS, **options):
    options = {"tile": (64, 64), "photometric": "rgb", **options}
    tifffile.imwrite(path, pixels, **options)
    return path


def raw_tiff(path, tags, data=b"", next_ifd=0, count=None):
    """A little-endian TIFF of one page: ``tags`` maps codes to (type, count, value or offset), ``data`` follows it."""
    entries = b"".join(struct.pack("<HHII", code, *entry) for code, entry in sorted(tags.items()))
    number = struct.pack("<H", len(tags) if count is None else count)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + number + entries + struct.pack("<I", next_ifd) + data)
    return path


SHORT, LONG = 3, 4


def page_tags(width=300, height=200, tile=64, tiles=20, offsets=300, **changes):
    """Tags of a tiled page of 8-bit RGB; the three bits per sample lie at byte 200."""
    tags = {256: (LONG, 1, width), 257: (LONG, 1, height), 258: (SHORT, 3, 200), 259: (SHORT, 1, 1),
            262: (SHORT, 1, 2), 277: (SHORT, 1, 3), 322: (LONG, 1, tile), 323: (LONG, 1, tile),
            324: (LONG, tiles, offsets), 325: (LONG, tiles, offsets)}  # fmt: skip
    return tags | {int(code[1:]): entry for code, entry in changes.items()}


def padded(tags):
    """What follows the page, so that the bits per sample are at byte 200, and zeros for all else."""
    return bytes(200 - (8 + 2 + 12 * len(tags) + 4)) + struct.pack("<HHH", 8, 8, 8) + bytes(5000)


def png_header(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("name", [CMU, JPEG2000, DICOM, DICOM_SMALL])
@pytest.mark.parametrize("percent", [0, 1, 20, 50, 65])
def test_real_slide_cut_short(data, tmp_path, name, percent):
    content = (data / "slides" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) * percent // 100])
    refuse(path)


@pytest.mark.parametrize("percent", [70, 80, 90, 99])
@pytest.mark.parametrize("name", [CMU, JPEG2000])
def test_real_slide_cut_short_is_refused_or_has_all_its_levels(data, tmp_path, name, percent):
    """Behind the levels a CMU slide has pictures of its label and glass."""
    content = (data / "slides" / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) * percent // 100])
    try:
        levels = read_whole(path)
    except InputError:
        return
    whole = read_whole(data / "slides" / name)
    assert len(levels) == len(whole)
    assert all(map(np.array_equal, levels, whole))


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
@pytest.mark.parametrize("kind", ["jpeg", "deflate", "plain", "strips", "lzw"])
def test_tiff_cut_short(tmp_path, kind, percent):
    options = {"jpeg": {"compression": "jpeg"}, "deflate": {"compression": "adobe_deflate"}, "plain": {},
               "strips": {"tile": None, "rowsperstrip": 16}, "lzw": {"compression": "lzw"}}[kind]  # fmt: skip
    path = tiff(tmp_path / "cut.tif", **options)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * percent // 100])
    refuse(path)


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_picture_cut_short(tmp_path, kind, percent):
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(content.getvalue()[: len(content.getvalue()) * percent // 100])
    refuse(path)


@pytest.mark.parametrize("ending", ["svs", "tif", "dcm", "png", "mrxs", "ndpi", ""])
def test_empty_file(tmp_path, ending):
    path = tmp_path / f"empty.{ending}"
    path.touch()
    refuse(path, "empty")


@pytest.mark.parametrize("ending", ["svs", "dcm", "png", "mrxs", "vms", "zip"])
def test_text_by_the_name_of_a_slide(tmp_path, ending):
    path = tmp_path / f"text.{ending}"
    path.write_text("not a slide\n" * 50)
    refuse(path)


@pytest.mark.parametrize(
    "magic",
    [b"II*\0", b"MM\0*", b"II+\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff",
     b"BM", bytes(128) + b"DICM", b"PK\3\4"],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["zeros", "noise", "nothing"])
def test_nothing_behind_the_first_bytes(tmp_path, magic, rest):
    path = tmp_path / "slide.svs"
    path.write_bytes(magic + {"zeros": bytes(5000), "noise": RNG.bytes(5000), "nothing": b""}[rest])
    refuse(path)


@pytest.mark.parametrize("ending", ["svs", "png", "dcm"])
def test_missing_file_and_folders(tmp_path, ending):
    refuse(tmp_path / f"nowhere.{ending}", "No such file")
    folder = tmp_path / f"folder.{ending}"
    folder.mkdir()
    refuse(folder)
    (folder / "notes.txt").write_text("nothing")
    (folder / "slide.svs").write_bytes(b"II*\0")
    refuse(folder)


def test_links_that_go_round_and_names_too_long(tmp_path):
    (tmp_path / "a.svs").symlink_to(tmp_path / "b.svs")
    (tmp_path / "b.svs").symlink_to(tmp_path / "a.svs")
    refuse(tmp_path / "a.svs")
    refuse(tmp_path / ("x" * 300 + ".svs"))


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    refuse(tmp_path / "pipe.svs", "no file")


def test_file_that_may_not_be_read(tmp_path):
    path = tiff(tmp_path / "secret.tif")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    refuse(path, "Permission denied")


@pytest.mark.parametrize("mpp", [0, -0.25, 0.001, 25.4, float("nan"), float("inf")])
@pytest.mark.parametrize("ending", ["tif", "png"])
def test_absurd_mpp(tmp_path, ending, mpp):
    path = tmp_path / f"slide.{ending}"
    tiff(path) if ending == "tif" else Image.fromarray(PIXELS).save(path)
    refuse(path, str(mpp), "--mpp", mpp=mpp)


@pytest.mark.parametrize("name", [JPEG2000, DICOM])
def test_real_slide_without_mpp(data, name):
    refuse(data / "slides" / name, "--mpp", mpp=None)


@pytest.mark.parametrize(
    "scale",
    [{}, {"resolution": (72, 72), "resolutionunit": "INCH"}, {"resolution": (4e4, 4e4), "resolutionunit": "NONE"}],
)
def test_tiff_without_mpp(tmp_path, scale):
    refuse(tiff(tmp_path / "slide.tif", **scale), "--mpp", mpp=None)


def test_pixels_that_are_not_square(tmp_path):
    path = tiff(tmp_path / "slide.tif", resolution=(40_000, 20_000), resolutionunit="CENTIMETER")
    refuse(path, "0.25", "0.5", "--mpp", mpp=None)
    read_whole(path, mpp=0.25)


GREY = PIXELS[..., 0].copy()
RGBA = np.concatenate([PIXELS, PIXELS[..., :1]], axis=2)


@pytest.mark.parametrize("tile", [(64, 64), None])
@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (PIXELS.astype(np.uint16) * 16, {}),
        (PIXELS.astype(np.float32) / 255, {}),
        (PIXELS.astype(np.int8), {}),
        (GREY, {"photometric": "minisblack"}),
        (GREY.astype(np.uint16), {"photometric": "minisblack"}),
        (GREY > 100, {"photometric": "minisblack"}),
        (RGBA, {"extrasamples": ["unassalpha"]}),
        (RGBA, {"photometric": "separated"}),
        (PIXELS, {"photometric": "ycbcr", "compression": "adobe_deflate"}),
        (PIXELS, {"photometric": "cielab"}),
        (GREY, {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}),
    ],
    ids=[
        "16-bit",
        "float",
        "signed",
        "grey",
        "grey 16-bit",
        "bits",
        "rgba",
        "cmyk",
        "ycbcr",
        "lab",
        "palette",
    ],
)
def test_other_pixels_than_8_bit_rgb(tmp_path, pixels, options, tile):
    refuse(tiff(tmp_path / "slide.tif", pixels, tile=tile, **options), "8-bit RGB")


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK", "I;16", "F", "1"])
def test_other_pictures_than_8_bit_colour(tmp_path, mode):
    kind = "tif" if mode in ("CMYK", "F") else "png"
    picture = Image.fromarray(GREY.astype(np.uint16) * 9) if mode == "I;16" else Image.fromarray(PIXELS).convert(mode)
    picture.save(tmp_path / f"slide.{kind}")
    refuse(tmp_path / f"slide.{kind}", "8-bit RGB")


def test_transparent_picture(tmp_path):
    Image.fromarray(RGBA).save(tmp_path / "slide.png")
    refuse(tmp_path / "slide.png", "transparent")


@pytest.mark.parametrize(("stated", "told"), [("RGB", 6), ("YCBCR", 2)])
def test_tiff_whose_tags_say_other_colours_than_its_tiles(tmp_path, tile_bytes, stated, told):
    if stated == "YCBCR":
        # tifffile writes RGB as JPEG's YCbCr
        path = tiff(tmp_path / "slide.tif", compression="jpeg")
    else:
        path = tiff(tmp_path / "slide.tif", compression="jpeg", compressionargs={"outcolorspace": "RGB"})
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(told)
    refuse(path, f"say {stated}")


@pytest.mark.parametrize(("width", "height"), [(200_000, 200_000), (20_000, 20_000), (2**31 - 1, 1)])
def test_picture_that_would_fill_the_memory(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(width, height))
    refuse(path)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tile": 60_000, "width": 60_000, "height": 60_000, "tiles": 1}, "60000 x 60000"),
        ({"tile": 2**31}, ""),
        ({"tile": 0}, ""),
        ({"width": 0}, ""),
        ({"height": 0}, ""),
        ({"width": 2**32 - 1, "height": 2**32 - 1}, ""),
        ({"tiles": 2**32 - 1}, ""),
        ({"tiles": 2**28}, ""),
        ({"tiles": 19}, "20 tiles"),
        ({"tiles": 21}, "20 tiles"),
        ({"offsets": 2**32 - 1}, ""),
        ({"t258": (SHORT, 3, 2**32 - 1)}, ""),
        ({"t258": (SHORT, 2**31, 200)}, ""),
        ({"t277": (SHORT, 1, 65535)}, ""),
        ({"t259": (SHORT, 1, 60_000)}, ""),
        ({"t259": (SHORT, 1, 7)}, ""),
        ({"t270": (2, 2**32 - 1, 200)}, ""),
    ],
)
def test_tags_that_claim_the_impossible(tmp_path, changes, word):
    tags = page_tags(**changes)
    data = bytearray(padded(tags))
    # tiles have bytes, so that they are not background
    start = 300 - (8 + 2 + 12 * len(tags) + 4)
    data[start : start + 400] = struct.pack("<I", 900) * 100
    refuse(raw_tiff(tmp_path / "slide.tif", tags, bytes(data)), word)


@pytest.mark.parametrize(
    ("next_ifd", "count", "word"), [(8, None, "byte 8"), (0, 65535, ""), (2**31, None, str(2**31))]
)
def test_pages_that_go_round_or_nowhere(tmp_path, next_ifd, count, word):
    tags = page_tags()
    refuse(raw_tiff(tmp_path / "slide.tif", tags, padded(tags), next_ifd, count), word)


def test_200000_pixels_square_of_nothing_are_white(tmp_path):
    """Where a tile begins and how long it is comes from one row of zeros in the file's end, that takes no room."""
    side, tile = 200_000, 256
    tiles = (-(-side // tile)) ** 2
    tags = page_tags(width=side, height=side, tile=tile, tiles=tiles, offsets=1000)
    path = raw_tiff(tmp_path / "empty.tif", tags, padded(tags))
    with open(path, "r+b") as file:
        file.truncate(1000 + 4 * tiles)
    for backend in ("cucim", "openslide", "tifffile"):
        with open_slide(path, backend, mpp=0.25) as slide:
            assert [(level.width, level.height) for level in slide.levels] == [(side, side)]
            for corner in ((0, 0), (123_456, 199_900)):
                assert (slide.read(0, *corner, 512, 512) == 255).all()


@pytest.mark.parametrize("ending", ["tif", "png"])
def test_slide_of_one_pixel_is_read(tmp_path, ending):
    path = tmp_path / f"one.{ending}"
    pixel = np.array([[[1, 2, 3]]], np.uint8)
    tiff(path, pixel, tile=(16, 16)) if ending == "tif" else Image.fromarray(pixel).save(path)
    with open_slide(path, mpp=0.25) as slide:
        assert np.array_equal(slide.read(0, 0, 0, 1, 1), pixel)
        assert (slide.read(0, 1, 0, 3, 3) == 255).all()


def dicom(path, kind=VLWholeSlideMicroscopyImageStorage, **entries):
    """DICOM of four frames of 8 x 8 pixels."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    entries = {
        "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"], "Rows": 8, "Columns": 8, "NumberOfFrames": 4,
        "TotalPixelMatrixColumns": 16, "TotalPixelMatrixRows": 16, "SamplesPerPixel": 3, "PlanarConfiguration": 0,
        "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7,
        "PixelRepresentation": 0, "DimensionOrganizationType": "TILED_FULL",
        "ImageOrientationSlide": [0, 1, 0, 1, 0, 0], "ImagedVolumeWidth": 1.0, "ImagedVolumeHeight": 1.0,
        "PixelData": bytes(range(256)) * 3, **entries,
    }  # fmt: skip
    for name, value in entries.items():
        if value is not None:
            setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_of_the_kind_that_is_changed_below_is_read(tmp_path):
    read_whole(dicom(tmp_path / "slide.dcm"))


@pytest.mark.parametrize(
    "entries",
    [
        {"kind": CTImageStorage},
        {"kind": CTImageStorage, "TotalPixelMatrixColumns": None, "SamplesPerPixel": 1},
        {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2", "PixelData": bytes(256)},
        {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15, "PixelData": bytes(1536)},
        {"ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]},
        {"TotalPixelMatrixColumns": 2**32 - 1, "TotalPixelMatrixRows": 2**32 - 1},
        {"TotalPixelMatrixColumns": 160},
        {"Rows": 0},
        {"TotalPixelMatrixRows": 0},
        {"NumberOfFrames": 3},
        {"NumberOfFrames": 2**31 - 1},
        {"PixelData": None},
        {"PixelData": bytes(100)},
        {"PhotometricInterpretation": "NONSENSE"},
        {"Rows": None},
    ],
)
def test_dicom_that_is_no_slide(tmp_path, entries):
    refuse(dicom(tmp_path / "slide.dcm", **entries))


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile", "dicom", "image"])
@pytest.mark.parametrize("content", [b"", b"not a slide", b"II*\0", bytes(128) + b"DICM" + bytes(90)])
def test_backend_that_cannot_open_the_file(tmp_path, backend, content):
    path = tmp_path / "slide.svs"
    path.write_bytes(content)
    refuse(path, backend=backend)


def test_unknown_backend_is_refused_with_the_known(tmp_path):
    with pytest.raises(InputError, match="'vips'.*cucim, openslide, tifffile, dicom, image"):
        open_slide(tmp_path / "slide.svs", backend="vips")


def peak_of_opening(path, answer):
    """Send what is said of a file, and the KB by which opening it raises this process's peak."""

    def peak():
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1])

    before = peak()
    try:
        open_slide(path, mpp=0.25)
        said = "opened"
    except InputError as error:
        said = str(error)
    answer.send((said, peak() - before))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("bomb", ["many tiles", "large tile", "many pages", "picture"])
def test_bombs_take_little_memory(tmp_path, bomb):
    path = tmp_path / "bomb.svs"
    if bomb == "picture":
        path.write_bytes(png_header(100_000, 100_000))
    else:
        size = {"width": 60_000, "height": 60_000}
        tags = page_tags(**{"many tiles": {"tiles": 2**28}, "large tile": {"tile": 60_000, "tiles": 1, **size},
                            "many pages": size}[bomb])  # fmt: skip
        raw_tiff(path, tags, padded(tags), next_ifd=8 if bomb == "many pages" else 0)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=peak_of_opening, args=(path, there))
    process.start()
    assert here.poll(60)
    said, kilobytes = here.recv()
    process.join()
    assert str(path) in said
    assert kilobytes < 100_000
