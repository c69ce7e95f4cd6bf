import itertools

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

SIDE = 3000


@pytest.fixture(scope="module")
def make(run, root):
    def call(source, output, *options):
        return run("python", root / "scripts" / "make_pyramid.py", "--source", source, "--output", output, *options)

    return call


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
    status, out, err = make(source, folder / "jpeg.tif", "--side", SIDE, "--tissue", "0.3", "--mpp", "0.5")
    assert status == 0, err
    assert "3000 x 3000 pixels, 3 levels" in out
    return folder / "jpeg.tif"


@pytest.fixture(scope="module")
def lossless(make, source, folder):
    status, _, err = make(source, folder / "deflate.tif", "--side", SIDE, "--compression", "adobe_deflate")
    assert status == 0, err
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


@pytest.mark.parametrize(("tissue", "tolerance"), [("0.3", 0.005), ("0.8", 0.005), ("0", 0), ("1", 0)])
def test_tissue_covers_the_given_share(make, source, tmp_path, tissue, tolerance):
    path = tmp_path / "slide.tif"
    status, _, err = make(source, path, "--side", SIDE, "--tissue", tissue, "--compression", "adobe_deflate")
    assert status == 0, err
    levels = levels_of(path)
    for level in levels:
        # glass is grey; of the source's pixels few are
        coloured = np.ptp(level.astype(int), axis=2) > 2
        assert coloured.mean() == pytest.approx(float(tissue) * 0.99, abs=tolerance + 0.02 * float(tissue))
    glass = np.ptp(levels[0].astype(int), axis=2) == 0
    if tissue == "0":
        assert glass.all()
        assert levels[0].mean() == pytest.approx(243, abs=0.5)
        assert 1 < levels[0].std() < 2


def test_same_arguments_give_the_same_bytes(make, source, jpeg, tmp_path):
    assert make(source, tmp_path / "a.tif", "--side", SIDE, "--tissue", "0.3", "--mpp", "0.5")[0] == 0
    assert (tmp_path / "a.tif").read_bytes() == jpeg.read_bytes()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--side", "100"], "--side 100"), (["--side", "many"], "--side many"), (["--tissue", "1.5"], "--tissue 1.5"),
        (["--compression", "lzw"], "--compression lzw"), (["--mpp", "0"], "--mpp"), (["--mpp", "x"], "--mpp x"),
        (["--output", "slide.png"], "slide.png"), (["--source", "missing"], "missing"),
        (["--source", "."], "holds no images"),
    ],
)  # fmt: skip
def test_useless_arguments_end_in_one_line(run, root, source, tmp_path, options, word):
    given = {"--source": source, "--output": "slide.tif", "--side": "1024", **dict([options])}
    arguments = [part for option in given.items() for part in option]
    status, _, err = run("python", root / "scripts" / "make_pyramid.py", *arguments, cwd=tmp_path)
    assert status == 1
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert word in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_small_pictures_are_refused(run, root, tmp_path):
    Image.new("RGB", (400, 200)).save(tmp_path / "small.png")
    command = ["python", root / "scripts" / "make_pyramid.py", "--source", tmp_path / "small.png"]
    status, _, err = run(*command, "--output", tmp_path / "slide.tif", "--side", "1024")
    assert status == 1
    assert "200 pixels" in err
