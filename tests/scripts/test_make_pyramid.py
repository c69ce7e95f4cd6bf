import importlib.util
import itertools

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from lightmuseg.errors import InputError

SIDE = 3000


@pytest.fixture(scope="module")
def make(root):
    """The script's function."""
    spec = importlib.util.spec_from_file_location("make_pyramid", root / "scripts" / "make_pyramid.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.make


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pyramid")


@pytest.fixture(scope="module")
def source(folder):
    """Two smooth coloured pictures."""
    (folder / "source").mkdir()
    y, x = np.mgrid[:600, :700]
    for number in range(2):
        waves = [np.sin(x / (40 + 9 * number)), np.cos(y / 50), np.sin((x + y) / (60 - 9 * number))]
        pixels = (150 + 60 * np.stack(waves, axis=2)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "source" / f"{number}.png")
    return folder / "source"


@pytest.fixture(scope="module")
def jpeg(make, source, folder):
    make(source, folder / "jpeg.tif", SIDE, tissue=0.3, mpp=0.5)
    return folder / "jpeg.tif"


@pytest.fixture(scope="module")
def lossless(make, source, folder):
    make(source, folder / "deflate.tif", SIDE, compression="adobe_deflate")
    return folder / "deflate.tif"


def levels_of(path):
    with tifffile.TiffFile(path) as file:
        return [level.asarray() for level in file.series[0].levels]


def test_levels_halve_until_they_are_small(jpeg):
    with openslide.OpenSlide(jpeg) as slide:
        assert slide.level_dimensions == ((3000, 3000), (1500, 1500), (750, 750))
        assert slide.level_downsamples == (1, 2, 4)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


def test_it_is_a_bigtiff_as_scanners_write_them(jpeg):
    with tifffile.TiffFile(jpeg) as file:
        assert file.is_bigtiff
        page = file.pages[0]
        assert (page.tilewidth, page.tilelength) == (256, 256)
        assert (page.compression.name, page.photometric.name) == ("JPEG", "YCBCR")


def test_three_readers_agree(jpeg):
    cucim = pytest.importorskip("cucim")
    image = cucim.CuImage(str(jpeg))
    with openslide.OpenSlide(jpeg) as slide:
        for level, pixels in enumerate(levels_of(jpeg)):
            box = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")
            # decoders round and widen the colour channels in their own ways
            assert np.abs(np.asarray(box).astype(int) - pixels).mean() < 0.5
            other = np.asarray(image.read_region((0, 0), slide.level_dimensions[level], level))
            assert np.abs(other.astype(int) - pixels).mean() < 0.5


def test_level_0_repeats_the_pixels_of_the_source(lossless, source):
    base = levels_of(lossless)[0]
    blocks = [np.asarray(Image.open(source / f"{number}.png"))[:512, :512] for number in range(2)]
    assert np.array_equal(base[:512, :512], blocks[0])
    assert np.array_equal(base[:512, 512:1024], blocks[1])
    assert np.array_equal(base[2048:], base[: SIDE - 2048])


def test_each_level_is_the_mean_of_the_finer_one(lossless):
    levels = levels_of(lossless)
    for finer, coarser in itertools.pairwise(levels):
        height, width = coarser.shape[:2]
        means = finer[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
        assert np.abs(means - coarser).max() <= 0.5


@pytest.mark.parametrize("tissue", [0.3, 0.8, 0, 1])
def test_tissue_covers_the_given_share(make, source, tmp_path, tissue):
    path = tmp_path / "slide.tif"
    make(source, path, SIDE // 2, tissue=tissue, compression="adobe_deflate")
    levels = levels_of(path)
    for level in levels:
        # glass is grey, and so are few pixels of the source
        coloured = np.ptp(level.astype(int), axis=2) > 2
        assert coloured.mean() == pytest.approx(tissue, rel=0.03)
    if tissue == 0:
        assert levels[0].mean() == pytest.approx(243, abs=0.5)
        assert 1 < levels[0].std() < 2


def test_same_arguments_give_the_same_bytes(make, source, jpeg, tmp_path):
    make(source, tmp_path / "a.tif", SIDE, tissue=0.3, mpp=0.5)
    assert (tmp_path / "a.tif").read_bytes() == jpeg.read_bytes()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"side": 100}, "--side 100"), ({"side": "many"}, "--side many"), ({"side": 10**9}, "--side 1000000000"),
        ({"tissue": 1.5}, "--tissue 1.5"), ({"tissue": "x"}, "--tissue x"), ({"tissue": float("nan")}, "--tissue nan"),
        ({"compression": "lzw"}, "--compression lzw"), ({"mpp": 0}, "--mpp"), ({"mpp": "x"}, "--mpp x"),
        ({"output": "slide.png"}, "slide.png"), ({"source": "missing"}, "missing: no such file"),
        ({"source": "."}, "holds no images"),
    ],
)  # fmt: skip
def test_useless_arguments_are_refused(make, source, tmp_path, monkeypatch, options, word):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=word):
        make(**{"source": source, "output": "slide.tif", "side": 1024, **options})
    assert list(tmp_path.iterdir()) == []


def test_small_pictures_are_refused(make, tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="200 pixels"):
        make(tmp_path / "small.png", tmp_path / "slide.tif", 1024)


def test_command_ends_a_fault_in_one_line(run, root, tmp_path):
    command = ["python", root / "scripts" / "make_pyramid.py", "--source", tmp_path, "--output", "slide.tif"]
    status, out, err = run(*command, "--side", "1024")
    assert (status, out) == (1, "")
    assert err.strip().startswith("lightmuseg: error:")
    assert len(err.strip().splitlines()) == 1
