"""Tissue without glass against painted slides of a known area, and against what pathologists annotated."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from lightmuseg.areas.area import Intersection, RegionOfInterest, WholeSlide
from lightmuseg.areas.glass import FINE_SIDE, without_glass
from lightmuseg.areas.region_of_interest import read_region
from lightmuseg.areas.tissue import seen, tissue_of
from lightmuseg.wsi.low_power import LowPower
from lightmuseg.wsi.readers.image import ArrayReader
from lightmuseg.wsi.readers.opening import open_slide

MPP = 2.0
STAINED, GLASS = (190, 104, 188), (243, 242, 244)


def masks(reader, region=None, step0=1):
    """What is analysed and what of it is tissue, bool, a pixel of ``step0`` of level 0."""
    base = reader.levels[0]
    picture = seen(reader)
    coarse = tissue_of(reader, picture)
    areas = [WholeSlide(base.width, base.height), *([region] if region else []), coarse]
    area = Intersection(areas)
    grid = 0, 0, step0, base.width // step0, base.height // step0
    analysed = area.mask(*grid)
    return analysed, analysed & without_glass(reader, area, coarse, picture).mask(*grid)


def painted(truth, colour=STAINED, glass=GLASS, noise=1.5, seed=0):
    """A picture of tissue where bool [h, w] ``truth`` is, on glass with noise and uneven light."""
    rng = np.random.default_rng(seed)
    picture = np.where(truth[..., None], np.float32(colour), np.float32(glass))
    picture += np.linspace(-2, 2, truth.shape[1])[None, :, None]
    picture += rng.normal(0, noise, (*truth.shape, 1)) + rng.normal(0, noise / 2, (*truth.shape, 3))
    return picture.clip(0, 255).round().astype(np.uint8)


def disc(side, radius, middle=None):
    """bool [side, side]; lengths in pixels."""
    y, x = np.ogrid[:side, :side]
    row, column = middle or (side / 2, side / 2)
    return np.hypot(y + 0.5 - row, x + 0.5 - column) < radius


@pytest.mark.parametrize(
    ("glass", "mpp"),
    [(GLASS, 1.5), (GLASS, 2.0), (GLASS, 4.0), ((255, 255, 255), 4.0), ((241, 236, 239), 4.0), ((250, 245, 225), 4.0)],
)
def test_painted_tissue_has_its_area(glass, mpp):
    # 2 mm across, with a bay of open glass 0.4 mm wide
    side = round(2800 / mpp)
    truth = disc(side, 1000 / mpp)
    truth[: side // 2, round(1200 / mpp) : round(1600 / mpp)] = False
    analysed, tissue = masks(ArrayReader(painted(truth, glass=glass), mpp))
    # in 4 um every pixel that the border cuts counts: half of one on the mean
    assert abs(tissue.sum() / truth.sum() - 1) < 0.01
    assert (tissue != truth).mean() < 0.01
    # what is looked at without it is too much by its margin of 32 um along a border of 8 mm
    assert analysed.sum() > 1.05 * truth.sum()


def test_share_of_painted_classes_is_right_to_half_a_percent():
    truth = disc(1200, 550)
    tumor = truth & (np.arange(1200) < 600)
    _, tissue = masks(ArrayReader(painted(truth), MPP))
    assert (tumor & tissue).sum() / tissue.sum() == pytest.approx(tumor.sum() / truth.sum(), abs=0.0025)
    assert tumor.sum() / tissue.sum() == pytest.approx(tumor.sum() / truth.sum(), rel=0.005)


@pytest.mark.parametrize(("um", "is_glass"), [(60, False), (85, False), (140, True), (400, True)])
def test_holes_are_glass_where_they_are_wider_than_fat_cells(um, is_glass):
    truth = disc(800, 350)
    hole = disc(800, um / 2 / MPP)
    analysed, tissue = masks(ArrayReader(painted(truth & ~hole), MPP))
    assert analysed[hole].all()
    inner = disc(800, um / 2 / MPP - 4)
    assert tissue[inner].mean() == (0 if is_glass else 1)


def test_lobule_of_fat_stays_tissue():
    truth = disc(500, 240)
    for row in range(150, 350, 48):
        for column in range(150, 350, 48):
            # cells of 90 um with walls of 6
            truth &= ~disc(500, 22.5, (row, column))
    _, tissue = masks(ArrayReader(painted(truth), MPP))
    assert tissue[126:350, 126:350].mean() > 0.99


def test_bleached_tissue_is_no_glass():
    truth = disc(600, 250)
    bleached = np.add(np.multiply(STAINED, 0.25), np.multiply(GLASS, 0.75))
    _, tissue = masks(ArrayReader(painted(truth, bleached), MPP))
    assert tissue[truth].mean() > 0.995
    assert tissue[~truth].mean() < 0.02


def test_slide_without_glass_is_all_tissue_and_one_of_glass_has_none():
    assert masks(ArrayReader(painted(np.ones((400, 500), bool)), MPP))[1].all()
    assert not masks(ArrayReader(painted(np.zeros((400, 500), bool)), MPP))[1].any()


@pytest.mark.parametrize("box", ["300,300,500,400", "0,0,1000,40", "995,995,5,5"])
def test_region_has_the_tissue_that_the_whole_slide_has_there(box):
    truth = disc(1000, 350) & ~disc(1000, 60)
    reader = ArrayReader(painted(truth), MPP)
    _, whole = masks(reader)
    region = read_region(box, 1000, 1000)
    _, part = masks(reader, region)
    assert np.array_equal(part, whole & region.mask(0, 0, 1.0, 1000, 1000))


class PartlyUnread(ArrayReader):
    """A picture whose right half cannot be read in the fine look."""

    def read_partly(self, index, xl, yl, width, height):
        pixels, _, _ = super().read_partly(index, xl, yl, width, height)
        unread = np.zeros((height, width), bool)
        unread[:, max(0, 500 - xl) :] = True
        return np.where(unread[..., None], np.uint8(255), pixels), unread, ("broken",)


def test_what_cannot_be_read_is_not_taken_for_glass():
    picture = painted(disc(1000, 350))
    whole, broken = ArrayReader(picture, MPP), PartlyUnread(picture, MPP)
    area, coarse = WholeSlide(1000, 1000), tissue_of(whole)
    tissue = without_glass(broken, area, coarse, seen(whole)).mask(0, 0, 1.0, 1000, 1000)
    assert tissue[:, 504:][coarse.mask(0, 0, 1.0, 1000, 1000)[:, 504:]].all()
    expected = without_glass(whole, area, coarse, seen(whole)).mask(0, 0, 1.0, 1000, 1000)
    assert np.array_equal(tissue[:, :420], expected[:, :420])


def test_very_large_slide_gets_a_coarser_look():
    reader = ArrayReader(np.full((8, 3 * FINE_SIDE, 3), GLASS, np.uint8), 4.0)
    picture = LowPower(np.full((8, 8, 3), GLASS, np.uint8), np.zeros((8, 8), bool), 1.0, 0, 0, ())
    region = RegionOfInterest(read_region("10,0,20,8", 3 * FINE_SIDE, 8).shape)
    found = without_glass(reader, region, tissue_of(reader), picture)
    assert found.step0 == 3
    assert found.grid.shape == (3, FINE_SIDE)


def on_glass(picture, pale):
    """A picture at 4 um/px, bleached by ``pale``, in the middle of glass with noise, 600 um all around."""
    rng, (height, width) = np.random.default_rng(0), picture.shape[:2]
    canvas = np.full((height + 300, width + 300, 3), 243.0)
    canvas[150:-150, 150:-150] = (1 - pale) * picture + pale * 243
    canvas += rng.normal(0, 1, canvas.shape[:2])[..., None] + rng.normal(0, 0.5, canvas.shape)
    return canvas.clip(0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("pale", [0, 0.5, 0.75])
def test_hardly_any_annotated_tissue_is_glass(data, pale):
    bcss, mosaic = data / "bcss", data / "bcss_05um"
    (a0d2,) = (bcss / "masks").glob("*A0D2*")
    sources = [
        (bcss / "rgbs" / a0d2.name, a0d2, 0.3), (mosaic / "AA15_mosaic_rgb.png", mosaic / "AA15_mosaic_mask.png", 0.5),
    ]  # fmt: skip
    for path, codes_path, mpp in sources:
        picture = Image.open(path).convert("RGB")
        size = [round(side * mpp / 4) for side in picture.size]
        picture = np.asarray(picture.resize(size, Image.Resampling.BOX))
        codes = np.asarray(Image.open(codes_path).resize(size, Image.Resampling.NEAREST))
        analysed, tissue = (mask[150:-150, 150:-150] for mask in masks(ArrayReader(on_glass(picture, pale), 4.0)))
        # tumor, stroma, lymphocytic infiltrate
        for code in (1, 2, 3):
            annotated = (codes == code) & analysed
            assert not annotated.any() or tissue[annotated].mean() > 0.99, (path, code)


@pytest.mark.parametrize(("name", "mpp"), [("CMU-1-Small-Region.svs", None), ("TCGA-CR-7395-01A-01-TS1.svs", 0.5)])
def test_rim_of_real_slides_is_glass_and_stained_tissue_is_not(data, name, mpp):
    with open_slide(data / "slides" / name, mpp=mpp) as reader:
        analysed, tissue = masks(reader, step0=4)
        pixels = reader.read(0, 0, 0, 4 * analysed.shape[1], 4 * analysed.shape[0])
    green = Image.fromarray(pixels[..., 1]).reduce(4)
    green = ndimage.uniform_filter(np.asarray(green, np.float32), 3)
    rim = analysed & ~tissue
    assert 0.05 < rim.sum() / analysed.sum() < 0.25
    assert np.percentile(green[rim], 1) > 215
    assert rim[green < 200].mean() < 0.002
