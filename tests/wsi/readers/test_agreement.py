"""Every reader that opens a slide gives the same pixels, those that another library decodes."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image

from lightmuseg.wsi.readers import open_slide

TIFF_READERS = ("cucim", "openslide", "tifffile")
# (width, height); not whole tiles, and halves that are no whole numbers
SIZE = (333, 271)
CMU = "CMU-1-Small-Region.svs"
MARGIN = 300
JPEG2000 = "TCGA-CR-7395-01A-01-TS1.svs"


def boxes(width, height, count, seed=0):
    """Places (xl, yl, width, height) all over a level, and over its edges."""
    rng = np.random.default_rng(seed)
    fixed = [(0, 0, width, height), (-5, -7, width + 20, height + 20), (width - 1, height - 1, 4, 4), (width, 0, 9, 9)]
    draws = (
        (rng.integers(-80, width + 40), rng.integers(-80, height + 40), *rng.integers(1, 200, 2)) for _ in range(count)
    )
    return fixed + [tuple(map(int, box)) for box in draws]


def check(slide, levels, largest_error=0, count=25):
    """Compare a slide's levels with their pixels in boxes of all kinds."""
    assert [(level.width, level.height) for level in slide.levels] == [image.shape[1::-1] for image in levels]
    for index, pixels in enumerate(levels):
        padded = np.pad(pixels, ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255)
        for box in boxes(*pixels.shape[1::-1], count):
            x, y, width, height = box
            read = slide.read(index, *box)
            assert read.dtype == np.uint8
            assert read.shape == (height, width, 3)
            expected = padded[MARGIN + y :, MARGIN + x :][:height, :width]
            assert np.abs(read.astype(np.int16) - expected).max() <= largest_error, (index, box)


def cropped(levels):
    """The levels that halve exactly: OpenSlide blends neighbouring pixels in others."""
    width, height = levels[0].shape[1] // 4 * 4, levels[0].shape[0] // 4 * 4
    return [level[: height >> index, : width >> index] for index, level in enumerate(levels)]


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_byte_orders_and_sizes_of_tiff_are_read_alike(tmp_path, pyramid, order, big):
    levels = cropped(pyramid(*SIZE))
    with tifffile.TiffWriter(tmp_path / "slide.tif", byteorder=order, bigtiff=big) as file:
        for index, level in enumerate(levels):
            file.write(level, tile=(64, 64), photometric="rgb", compression="adobe_deflate", subfiletype=int(index > 0))
    for backend in ("cucim", "tifffile"):
        with open_slide(tmp_path / "slide.tif", backend, mpp=0.5) as slide:
            check(slide, levels)


@pytest.mark.parametrize("compression", ["adobe_deflate", None])
@pytest.mark.parametrize("backend", TIFF_READERS)
def test_lossless_tiles_are_read_exactly(tmp_path, pyramid, write_slide, backend, compression):
    levels = cropped(pyramid(*SIZE))
    path = write_slide(tmp_path / "slide.tif", levels, compression=compression)
    with open_slide(path, backend) as slide:
        assert slide.backend == backend
        check(slide, levels)


@pytest.mark.parametrize("backend", ["cucim", "tifffile"])
def test_levels_of_odd_sizes_are_read_exactly(tmp_path, pyramid, write_slide, backend):
    levels = pyramid(*SIZE)
    path = write_slide(tmp_path / "slide.tif", levels, compression="adobe_deflate")
    with open_slide(path, backend) as slide:
        assert slide.levels[1].downsample == pytest.approx((333 / 167 + 271 / 136) / 2)
        check(slide, levels)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "packbits"])
def test_compressions_that_cucim_does_not_take_are_read_by_tifffile(tmp_path, pyramid, write_slide, compression):
    levels = cropped(pyramid(*SIZE))
    path = write_slide(tmp_path / "slide.tif", levels, compression=compression)
    with open_slide(path) as slide:
        assert slide.backend == "tifffile"
        check(slide, levels)


@pytest.mark.parametrize("compression", ["adobe_deflate", "zstd"])
def test_predictor_is_read_by_tifffile(tmp_path, pyramid, write_slide, compression):
    """cuCIM would end the process when it opens the file, were it the label's page alone."""
    levels = cropped(pyramid(*SIZE))
    path = write_slide(tmp_path / "slide.tif", levels, compression=compression, predictor=True)
    with open_slide(path) as slide:
        assert slide.backend == "tifffile"
        check(slide, levels)
    with tifffile.TiffWriter(path) as file:
        file.write(levels[0], tile=(64, 64), photometric="rgb")
        file.write(levels[2], photometric="rgb", compression=compression, predictor=True, description="label")
    with open_slide(path, mpp=0.5) as slide:
        assert slide.backend == "tifffile"
        check(slide, levels[:1])


@pytest.mark.parametrize("backend", TIFF_READERS)
def test_jpeg_tiles_are_read_as_tifffile_reads_whole_levels(tmp_path, pyramid, write_slide, backend):
    path = write_slide(tmp_path / "slide.tif", cropped(pyramid(*SIZE)), compression="jpeg")
    with open_slide(path, backend) as slide:
        check(slide, [tifffile.imread(path, key=index) for index in range(3)], 2)


@pytest.mark.parametrize(
    ("compression", "colours", "backends"),
    [
        (33003, "YCbCr", ["auto", "cucim", "tifffile"]),
        (33005, "RGB", ["auto", "cucim", "tifffile"]),
        (34712, "RGB", ["auto"]),
    ],
)
def test_jpeg2000_in_aperios_colours_is_read(tmp_path, picture, compression, colours, backends):
    pixels = picture(256, 192)
    stored = np.asarray(Image.fromarray(pixels).convert(colours))
    places = [(y, x) for y in range(0, 192, 64) for x in range(0, 256, 64)]
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        options = {"codecformat": "j2k", "reversible": True, "level": 0, "mct": False}
        tiles = (imagecodecs.jpeg2k_encode(stored[y : y + 64, x : x + 64].copy(), **options) for y, x in places)
        file.write(tiles, shape=pixels.shape, dtype=np.uint8, tile=(64, 64), compression=compression, photometric="rgb")
    for backend in backends:
        with open_slide(tmp_path / "slide.tif", backend, mpp=0.5) as slide:
            assert slide.backend == {"auto": "cucim" if compression < 34712 else "tifffile"}.get(backend, backend)
            # there and back again
            check(slide, [pixels], 3 * (colours == "YCbCr"))


@pytest.mark.parametrize("backend", ["auto", "cucim", "tifffile"])
def test_pages_in_another_order_and_other_pictures(tmp_path, pyramid, picture, backend):
    levels = cropped(pyramid(*SIZE))
    with tifffile.TiffWriter(tmp_path / "slide.tif") as file:
        for index in (0, 2, 1):
            file.write(levels[index], tile=(64, 64), photometric="rgb", subfiletype=int(index > 0))
        # all of the slide's kind of pixels: a thumbnail in strips, a label of the slide's shape, the glass, and more
        options = {"photometric": "rgb", "subfiletype": 1}
        file.write(levels[2], **options)
        file.write(levels[1][::4, ::4].copy(), tile=(64, 64), description="label 42x34", metadata=None, **options)
        file.write(levels[1][::3, ::3].copy(), tile=(64, 64), photometric="rgb", subfiletype=9)
        file.write(picture(200, 80), tile=(64, 64), **options)
    with open_slide(tmp_path / "slide.tif", backend, mpp=0.5) as slide:
        check(slide, levels)


def test_levels_in_an_ome_tiffs_subifds_are_found(tmp_path, pyramid, write_slide):
    levels = cropped(pyramid(*SIZE))
    path = write_slide(tmp_path / "slide.ome.tif", levels, subifds=True, compression="adobe_deflate")
    with open_slide(path) as slide:
        assert slide.backend == "tifffile"
        check(slide, levels)


@pytest.mark.parametrize("rows", [1, 16, 1000])
def test_strips_are_read_one_by_one(tmp_path, picture, rows):
    pixels = picture(*SIZE)
    tifffile.imwrite(tmp_path / "slide.tif", pixels, rowsperstrip=rows, photometric="rgb", compression="adobe_deflate")
    with open_slide(tmp_path / "slide.tif", mpp=0.5) as slide:
        assert slide.backend == "tifffile"
        check(slide, [pixels])


@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_pictures_are_slides_of_one_level(tmp_path, picture, kind):
    pixels = picture(*SIZE)
    Image.fromarray(pixels).save(tmp_path / f"slide.{kind}")
    with open_slide(tmp_path / f"slide.{kind}", mpp=0.5) as slide:
        check(slide, [pixels])


@pytest.mark.parametrize("jpeg", [False, True])
def test_dicom_is_read_as_pydicom_decodes_its_frames(tmp_path, pyramid, write_dicom, jpeg):
    levels = cropped(pyramid(*SIZE))
    folder = write_dicom(tmp_path / "series", levels, jpeg=jpeg)
    expected = levels
    if jpeg:
        expected = [mosaic(folder / f"{number}.dcm") for number in range(len(levels))]
    with open_slide(folder) as slide:
        assert slide.mpp == pytest.approx(0.25)
        check(slide, expected, 2 * jpeg)
    with open_slide(folder / "1.dcm") as slide:
        # any file stands for all levels of its series
        assert slide.mpp == pytest.approx(0.25)
        check(slide, expected, 2 * jpeg)


def mosaic(path, by_columns=False):
    """The pixels of a DICOM slide whose frames are in rows or in columns, by pydicom."""
    dataset = pydicom.dcmread(path)
    frames = dataset.pixel_array
    columns = -(-dataset.TotalPixelMatrixColumns // dataset.Columns)
    if by_columns:
        frames = frames.reshape(columns, -1, *frames.shape[1:]).swapaxes(0, 1).reshape(frames.shape)
    rows = [np.concatenate(list(frames[start : start + columns]), axis=1) for start in range(0, len(frames), columns)]
    return np.concatenate(rows)[: dataset.TotalPixelMatrixRows, : dataset.TotalPixelMatrixColumns]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "by_columns"), [("pathml_small_dicom.dcm", True), ("highdicom_sm_image.dcm", False)])
def test_real_dicom_is_read_as_pydicom_decodes_its_frames(data, name, by_columns):
    """One of them lacks entries, runs in columns and says RGB of what is YCbCr, so that wsidicom alone refuses it."""
    with open_slide(data / "slides" / name, mpp=0.5) as slide:
        check(slide, [mosaic(data / "slides" / name, by_columns)], 2)


@pytest.fixture(scope="module")
def whole_levels(data):
    """A function: the levels of a real slide, by tifffile."""

    @lru_cache
    def read(name):
        with tifffile.TiffFile(data / "slides" / name) as file:
            return [page.asarray() for page in file.pages if page.is_tiled]

    return read


@pytest.mark.parametrize(("name", "count"), [(CMU, 1), (JPEG2000, 2)])
@pytest.mark.parametrize("backend", TIFF_READERS)
def test_real_slides_are_read_as_tifffile_reads_whole_levels(data, whole_levels, backend, name, count):
    path, levels = data / "slides" / name, whole_levels(name)
    assert len(levels) == count
    with open_slide(path, backend, mpp=0.5) as slide:
        if backend == "openslide" and count == 2:
            # its second level halves no whole number of pixels: OpenSlide blends them, by at most half a pixel
            shift = slide.read(1, 1000, 800, 400, 400).astype(int) - levels[1][800:1200, 1000:1400]
            assert np.abs(shift.mean()) < 0.5
            check(slide_of_one_level(slide), levels[:1], 2, count=8)
        else:
            check(slide, levels, 2, count=8)


def slide_of_one_level(slide):
    slide.levels = slide.levels[:1]
    return slide


@pytest.mark.parametrize("backend", [*TIFF_READERS, "dicom"])
def test_threads_read_what_one_reads(tmp_path, pyramid, write_slide, write_dicom, backend):
    levels = cropped(pyramid(*SIZE))
    if backend == "dicom":
        path = write_dicom(tmp_path / "series", levels, jpeg=True)
    else:
        path = write_slide(tmp_path / "slide.tif", levels, compression="jpeg")
    corners = [(x, y) for y in range(-20, 271, 37) for x in range(-20, 333, 41)]
    with open_slide(path, backend) as alone, open_slide(path, backend, workers=4) as many:
        expected = alone.read_batch(0, corners, 70, 50)
        for _ in range(3):
            assert all(map(np.array_equal, many.read_batch(0, corners, 70, 50), expected))
        with ThreadPoolExecutor(4) as threads:
            assert all(map(np.array_equal, threads.map(lambda at: many.read(0, *at, 70, 50), corners), expected))
