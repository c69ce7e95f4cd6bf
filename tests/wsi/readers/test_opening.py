"""What opens which slide, and whose um/px hold."""

import builtins
import logging
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.readers import kept_open, open_slide, tiff_tiles
from lightmuseg.wsi.tile_grid import TileGrid

CMU = "CMU-1-Small-Region.svs"
JPEG2000 = "TCGA-CR-7395-01A-01-TS1.svs"


@pytest.fixture
def pixels(picture):
    return picture(150, 130)


def write(path, pixels, **options):
    tifffile.imwrite(path, pixels, **{"tile": (64, 64), "photometric": "rgb", **options})
    return path


def without(monkeypatch, *packages):
    """Let the packages be not installed."""
    real, decompressors = builtins.__import__, tifffile.TIFF.DECOMPRESSORS

    def importing(name, *args, **kwargs):
        if name.split(".")[0] in packages and kwargs.get("level", args[3] if len(args) > 3 else 0) == 0:
            raise ModuleNotFoundError(f"No module named '{name}'")
        return real(name, *args, **kwargs)

    class Decompressors:
        def __getitem__(self, key):
            if key == tifffile.COMPRESSION.JPEG:
                raise KeyError("<COMPRESSION.JPEG: 7> requires the 'imagecodecs' package")
            return decompressors[key]

    monkeypatch.setattr(builtins, "__import__", importing)
    if "imagecodecs" in packages:
        monkeypatch.setattr(tifffile.TIFF, "DECOMPRESSORS", Decompressors())


@pytest.mark.parametrize(
    ("name", "backend"), [(CMU, "cucim"), (JPEG2000, "cucim"), ("pathml_small_dicom.dcm", "dicom")]
)
def test_real_slides_have_their_reader(data, tmp_path, name, backend):
    # cuCIM goes by the name's end; the others by what the file holds
    copy = tmp_path / "slide"
    shutil.copy(data / "slides" / name, copy)
    for path, expected in ((data / "slides" / name, backend), (copy, backend.replace("cucim", "tifffile"))):
        with open_slide(path, mpp=0.5) as slide:
            assert slide.backend == expected
            assert slide.mpp == 0.5


@pytest.mark.parametrize(
    ("missing", "backend"),
    [(["cucim"], "tifffile"), (["cucim", "imagecodecs"], "openslide"), (["openslide"], "cucim")],
)
def test_next_reader_is_taken_where_one_is_not_installed(data, monkeypatch, missing, backend):
    without(monkeypatch, *missing)
    with open_slide(data / "slides" / CMU) as slide:
        assert slide.backend == backend


@pytest.mark.parametrize(
    ("backend", "package"),
    [("cucim", "cucim"), ("openslide", "openslide"), ("tifffile", "imagecodecs"), ("dicom", "wsidicom")],
)
def test_reader_that_is_not_installed_is_refused_with_its_package(data, monkeypatch, backend, package):
    without(monkeypatch, package)
    path = data / "slides" / ("highdicom_sm_image.dcm" if backend == "dicom" else CMU)
    with pytest.raises(InputError, match=f"{path.name}.*pip install"):
        open_slide(path, backend)


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile"])
def test_aperios_mpp_is_read(data, backend):
    with open_slide(data / "slides" / CMU, backend) as slide:
        assert slide.mpp == pytest.approx(0.499)


OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels '
    'DimensionOrder="XYCZT" ID="Pixels:0" SizeX="150" SizeY="130" SizeC="3" SizeZ="1" SizeT="1" Type="uint8" {}/>'
    "</Image></OME>"
)


@pytest.mark.parametrize("backend", ["cucim", "openslide", "tifffile"])
@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (40_000, 39_700), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"description": OME.format('PhysicalSizeX="0.25" PhysicalSizeY="0.25"')}, 0.25),
        ({"description": OME.format('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00025" '
                                    'PhysicalSizeYUnit="mm"')}, 0.25),
        ({"description": OME.format('PhysicalSizeX="0.5" PhysicalSizeXUnit="\u00b5m" PhysicalSizeY="0.5"')}, 0.5),
        ({"description": OME.format('PhysicalSizeX="0.5" PhysicalSizeY="0.5"'),
          "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
    ],
)  # fmt: skip
def test_mpp_of_tiff_is_read(tmp_path, pixels, backend, options, mpp):
    if "description" in options:
        options = {**options, "description": options["description"].encode(), "metadata": None}
    with open_slide(write(tmp_path / "slide.tif", pixels, **options), backend) as slide:
        assert slide.mpp == pytest.approx(mpp)


def test_mpp_of_dicom_is_read(tmp_path, pixels, write_dicom):
    with open_slide(write_dicom(tmp_path / "series", [pixels], mpp=0.4)) as slide:
        assert slide.mpp == pytest.approx(0.4)


def test_given_mpp_goes_before_the_files(tmp_path, pixels, write_slide):
    path = write_slide(tmp_path / "slide.tif", [pixels], mpp=0.5)
    for given, mpp in ((None, 0.5), (0.3, 0.3)):
        with open_slide(path, mpp=given) as slide:
            assert slide.mpp == pytest.approx(mpp)


@pytest.mark.parametrize(
    "text",
    [
        'PhysicalSizeX="0.25" PhysicalSizeY="0.5"',
        'PhysicalSizeX="0" PhysicalSizeY="0"',
        'PhysicalSizeX="25" PhysicalSizeY="25"',
        'PhysicalSizeX="0.25" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.25" PhysicalSizeYUnit="pixel"',
        'PhysicalSizeX="nonsense" PhysicalSizeY="1"',
        'PhysicalSizeX="1e999" PhysicalSizeY="1e999"',
        'PhysicalSizeX="1.2.3" PhysicalSizeY="1.2.3"',
        "",
    ],
)
def test_useless_mpp_of_ome_is_refused(tmp_path, pixels, text):
    path = write(tmp_path / "slide.tif", pixels, description=OME.format(text).encode(), metadata=None)
    with pytest.raises(InputError, match=r"slide\.tif.*--mpp"):
        open_slide(path)


@pytest.mark.parametrize("entry", ["unknown", "", "0", "-0.5", "12345678"])
def test_useless_mpp_of_aperio_is_refused(tmp_path, pixels, entry):
    text = f"Aperio Image Library v11\n150x130|AppMag = 20|MPP = {entry}"
    path = write(tmp_path / "slide.svs", pixels, description=text, metadata=None)
    with pytest.raises(InputError, match=r"slide\.svs.*--mpp"):
        open_slide(path)


def test_gpu_that_is_not_there_is_warned_of_once(tmp_path, pixels, write_slide, caplog, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = write_slide(tmp_path / "slide.tif", [pixels])
    with caplog.at_level(logging.WARNING), open_slide(path, device="cuda") as slide:
        for corner in ((0, 0), (64, 64)):
            assert np.array_equal(slide.read(0, *corner, 50, 50), pixels[corner[1] :, corner[0] :][:50, :50])
    assert [record.message for record in caplog.records if "GPU" in record.message] == [
        f"{path}: is decoded on the CPU, not on a GPU (there is none)."
    ]


def test_unknown_device_is_refused(tmp_path, pixels, write_slide):
    with pytest.raises(InputError, match="'gpu'.*cpu, cuda"):
        open_slide(write_slide(tmp_path / "slide.tif", [pixels]), device="gpu")


def test_readers_in_turn_do_not_mix_up_slides(tmp_path, picture, write_slide):
    """cuCIM's cache is the process's."""
    for seed in range(20):
        pixels = picture(150, 130, seed)
        (tmp_path / "slide.tif").unlink(missing_ok=True)
        with open_slide(write_slide(tmp_path / "slide.tif", [pixels])) as slide:
            assert slide.backend == "cucim"
            assert np.array_equal(slide.read(0, 0, 0, 150, 130), pixels)


def test_picture_without_transparent_pixels_is_read(tmp_path, pixels):
    opaque = np.concatenate([pixels, np.full((130, 150, 1), 255, np.uint8)], axis=2)
    Image.fromarray(opaque).save(tmp_path / "slide.png")
    with open_slide(tmp_path / "slide.png", mpp=0.5) as slide:
        assert np.array_equal(slide.read(0, 0, 0, 150, 130), pixels)


@pytest.mark.parametrize("workers", [1, 3])
def test_batch_keeps_the_order_and_names_what_is_damaged(tmp_path, pixels, write_slide, tile_bytes, workers):
    path = write_slide(tmp_path / "slide.tif", [pixels], compression="adobe_deflate")
    offset, count, _, _ = tile_bytes(path, tile=4)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(bytes(count))
    corners = [(64, 64), (0, 0), (128, 0), (70, 70), (0, 64)]
    for backend in ("cucim", "openslide", "tifffile"):
        with open_slide(path, backend, workers=workers) as slide:
            boxes = slide.read_batch(0, corners, 20, 10)
        for (x, y), box in zip(corners, boxes):
            if 64 <= x < 128 and 64 <= y < 128:
                assert isinstance(box, InputError)
            else:
                assert np.array_equal(box[:, : 150 - x], pixels[y : y + 10, x : x + 20])


def test_slide_that_is_kept_open_is_opened_once_by_a_process(tmp_path, pixels, write_slide, monkeypatch):
    path = write_slide(tmp_path / "slide.tif", [pixels])
    with kept_open(path) as slide:
        assert kept_open(str(path)) is slide
        monkeypatch.setattr("os.getpid", lambda: -1)
        with kept_open(path) as other:
            assert other is not slide
            assert np.array_equal(other.read(0, 0, 0, 150, 130), pixels)


def test_an_attribute_that_our_own_code_lacks_is_no_damaged_file(tmp_path, pixels, write_slide, monkeypatch):
    slide = write_slide(tmp_path / "a.tif", [pixels])
    monkeypatch.delattr(tiff_tiles.TiffReader, "_check_colours")
    with pytest.raises(AttributeError, match="_check_colours"):
        open_slide(slide, "tifffile")
    monkeypatch.undo()
    with open_slide(slide, "tifffile") as reader:
        monkeypatch.delattr(TileGrid, "bytes_of")
        with pytest.raises(AttributeError, match="bytes_of"):
            reader.read(0, 0, 0, 64, 64)


def test_an_attribute_that_tifffile_lacks_is_a_damaged_file(tmp_path, pixels, write_slide, monkeypatch):
    slide = write_slide(tmp_path / "a.tif", [pixels])
    monkeypatch.delattr(tifffile.TiffTags, "add")
    with pytest.raises(InputError, match=r"a.tif: .*add.*export it again"):
        open_slide(slide, "tifffile")
