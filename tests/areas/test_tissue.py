import numpy as np
import openslide
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage
from skimage.filters import threshold_otsu

from lightmuseg.areas.tissue import CLOSING_UM, MARGIN_UM, find_tissue

UM, MPP0 = 8.0, 0.25
GLASSES = {
    "grey": (243, 243, 243), "white": (255, 255, 255), "dim": (202, 203, 200), "yellow": (250, 245, 225),
    "pink": (250, 240, 245), "blue": (232, 240, 250),
}  # fmt: skip
INKS = {
    "green": (30, 120, 60),
    "blue": (40, 60, 180),
    "black": (26, 23, 29),
    "red": (215, 35, 55),
    "cyan": (20, 150, 200),
}
HEIGHT, WIDTH = 400, 600


def mask_of(picture, um=UM):
    return find_tissue(picture, um / MPP0, MPP0).grid


def reduced(picture, um, target_um=UM):
    size = [max(1, round(side * um / target_um)) for side in picture.shape[1::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def read(path):
    return np.asarray(Image.open(path).convert("RGB"))


def filled_from(picture):
    """A picture of the canvas's size, of mirrored copies."""
    picture = np.concatenate([picture, picture[::-1]])
    picture = np.concatenate([picture, picture[:, ::-1]], axis=1)
    return np.tile(picture, (HEIGHT // len(picture) + 1, WIDTH // picture.shape[1] + 1, 1))[:HEIGHT, :WIDTH]


def shape_of_tissue():
    rough = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(HEIGHT, WIDTH)), 40)
    return rough > 0.5 * rough.std()


def glass_slide(colour, noise=1.2):
    """Float [h, w, 3], with noise and uneven light."""
    rng = np.random.default_rng(2)
    slide = np.full((HEIGHT, WIDTH, 3), colour, float) + np.linspace(-2, 2, WIDTH)[None, :, None]
    return slide + rng.normal(0, noise, (HEIGHT, WIDTH, 1)) + rng.normal(0, noise / 2, (HEIGHT, WIDTH, 3))


def with_tissue(slide, colour, tissue, truth, pale):
    stained = tissue / 255.0 * colour * (1 - pale) + np.multiply(colour, pale)
    share = ndimage.gaussian_filter(truth.astype(float), 0.7)[..., None]
    return slide * (1 - share) + stained * share


def with_ink(slide, colour, y):
    """A wavy stroke of 110 um, now dense and now thin, and where it is."""
    stroke = Image.new("L", (WIDTH, HEIGHT), 0)
    points = [(x, y + round(20 * np.sin(x / 60))) for x in range(20, WIDTH - 20, 8)]
    ImageDraw.Draw(stroke).line(points, fill=255, width=14)
    density = (
        np.asarray(stroke.filter(ImageFilter.GaussianBlur(1.2))) / 255 * (0.7 + 0.25 * np.sin(np.arange(WIDTH) / 9))
    )
    return slide * (1 - density[..., None]) + density[..., None] * colour * (slide / 245) ** 0.5, density > 0.1


def as_jpeg(slide, tmp_path):
    path = tmp_path / "thumbnail.jpg"
    Image.fromarray(slide.clip(0, 255).round().astype(np.uint8)).save(path, quality=80)
    return read(path)


def grown(mask, um=MARGIN_UM):
    return ndimage.distance_transform_edt(~mask) * UM <= um


def agreement(mask, truth):
    """Intersection over union with the truth and its margin, and the share of the truth that is found."""
    wider = grown(truth)
    return (mask & wider).sum() / (mask | wider).sum(), (mask & truth).sum() / truth.sum()


@pytest.fixture(scope="module")
def regions(data):
    """Real tissue without glass, by name: uint8 at 8 um/px."""
    paths = [*sorted((data / "bcss" / "rgbs").glob("*.png")), *sorted((data / "histolytics").glob("*.jpg"))]
    return {path.stem[:12]: reduced(read(path), 0.25) for path in paths}


@pytest.fixture(scope="module")
def tissue(regions):
    """Real tissue of four kinds side by side, of the canvas's size."""
    strips = [filled_from(picture)[:, : WIDTH // len(regions)] for picture in regions.values()]
    return np.concatenate(strips, axis=1)


@pytest.mark.parametrize("pale", [0, 0.5, 0.75])
def test_regions_of_tissue_alone_are_all_tissue(regions, pale):
    assert len(regions) == 4
    for name, picture in regions.items():
        bleached = (picture * (1 - pale) + 245 * pale).round().astype(np.uint8)
        assert mask_of(bleached).mean() > 0.97, name
        # a threshold that the histogram chooses takes half of it away
        grey = picture.mean(axis=2)
        assert (grey < threshold_otsu(grey)).mean() < 0.8, name


def test_tiles_of_tissue_are_nearly_all_tissue(data):
    tiles = [reduced(read(path), 0.5) for path in sorted((data / "camelyon" / "images").iterdir())]
    shares = [find_tissue(tile, 16, 0.5).grid.mean() for tile in tiles]
    assert min(shares) > 0.9
    assert np.mean(shares) > 0.99


def read_slide(path, mpp):
    with openslide.OpenSlide(path) as slide:
        level0 = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))
    return reduced(level0, mpp)


def test_slide_with_much_glass_is_split_at_the_tissue(data):
    picture = read_slide(data / "slides" / "CMU-1-Small-Region.svs", 0.499)
    mask = find_tissue(picture, 8 / 0.499, 0.499).grid
    # what is clearly coloured, and what is clearly glass and far from it
    stained = ndimage.binary_opening(picture.min(axis=2) < 190, iterations=2)
    assert mask[stained].mean() > 0.97
    assert not mask[~grown(picture.min(axis=2) < 225, 120)].any()
    assert 0.4 < mask.mean() < 0.6


def test_filled_white_beside_pinkish_glass_is_no_tissue(data):
    picture = read_slide(data / "slides" / "TCGA-CR-7395-01A-01-TS1.svs", 2.0)
    mask = find_tissue(picture, 4, 2.0).grid
    assert not mask[(picture == 255).all(axis=2) & ~grown((picture < 225).any(axis=2), 60)].any()
    assert mask[ndimage.binary_opening(picture[..., 1] < 200, iterations=2)].mean() > 0.99
    assert 0.55 < mask.mean() < 0.75


@pytest.mark.parametrize("pale", [0, 0.5, 0.75])
@pytest.mark.parametrize("glass", GLASSES)
def test_tissue_is_found_on_glass_of_any_tint(tissue, tmp_path, glass, pale):
    truth = shape_of_tissue()
    slide = with_tissue(glass_slide(GLASSES[glass]), GLASSES[glass], tissue, truth, pale)
    overlap, recall = agreement(mask_of(as_jpeg(slide, tmp_path)), truth)
    assert recall > 0.97
    assert overlap > 0.9


@pytest.mark.parametrize("um", [4, 16, 32])
def test_thumbnails_of_any_scale_give_the_same_tissue(tissue, um):
    truth = shape_of_tissue()
    slide = with_tissue(glass_slide(GLASSES["grey"]), GLASSES["grey"], tissue, truth, 0.5)
    slide = slide.clip(0, 255).astype(np.uint8)
    size = round(WIDTH * UM / um), round(HEIGHT * UM / um)
    mask = mask_of(np.asarray(Image.fromarray(slide).resize(size, Image.Resampling.BOX)), um)
    again = np.asarray(Image.fromarray(mask).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST))
    overlap, recall = agreement(again, truth)
    assert recall > 0.97
    assert overlap > 0.85


@pytest.mark.parametrize("noise", [0, 1.2, 4])
@pytest.mark.parametrize("glass", GLASSES)
def test_empty_slide_is_empty(tmp_path, glass, noise):
    assert not mask_of(as_jpeg(glass_slide(GLASSES[glass], noise), tmp_path)).any()


def test_empty_slide_with_dust_and_a_coverslip_is_empty(tmp_path):
    slide, rng = glass_slide(GLASSES["grey"]), np.random.default_rng(3)
    for y, x, size in zip(rng.integers(0, HEIGHT, 100), rng.integers(0, WIDTH, 100), rng.integers(1, 6, 100)):
        slide[y : y + size, x : x + size] = rng.choice([40, 90, 150])
    # its edge with the fringes of a lens
    slide[200:203], slide[199], slide[203] = 110, (185, 205, 190), (200, 180, 205)
    assert not mask_of(as_jpeg(slide, tmp_path)).any()


def test_borders_and_grey_backgrounds_are_no_tissue(tissue, tmp_path):
    truth = shape_of_tissue()
    slide = with_tissue(glass_slide(GLASSES["grey"]), GLASSES["grey"], tissue, truth, 0.5)
    for box, value in ((np.s_[:40], 0), (np.s_[:, :30], 0), (np.s_[-30:], 128), (np.s_[:, -80:], 255)):
        slide[box], truth[box] = value, False
    overlap, recall = agreement(mask_of(as_jpeg(slide, tmp_path)), truth)
    assert recall > 0.97
    assert overlap > 0.85


@pytest.mark.parametrize("glass", ["pink", "blue"])
def test_glass_is_told_from_the_white_that_fills_most_of_a_slide(tissue, tmp_path, glass):
    truth = shape_of_tissue()
    slide = with_tissue(glass_slide(GLASSES[glass]), GLASSES[glass], tissue, truth, 0.75)
    slide[:, 250:], truth[:, 250:] = 255, False
    overlap, recall = agreement(mask_of(as_jpeg(slide, tmp_path)), truth)
    assert recall > 0.97
    assert overlap > 0.85


def test_black_border_with_a_tint_is_no_tissue(tmp_path):
    slide = glass_slide(GLASSES["grey"], noise=0.5)
    slide[:100] -= slide[:100].mean(axis=(0, 1)) - (7, 5, 7)
    assert not mask_of(as_jpeg(slide, tmp_path)).any()


@pytest.mark.parametrize("glass", ["grey", "pink"])
@pytest.mark.parametrize("ink", INKS)
def test_ink_over_glass_is_no_tissue(tmp_path, ink, glass):
    slide, stroke = with_ink(glass_slide(GLASSES[glass]), INKS[ink], 200)
    mask = mask_of(as_jpeg(slide, tmp_path))
    assert mask[stroke].mean() < 0.02
    assert mask.mean() < 0.005


@pytest.mark.parametrize("pale", [0, 0.5])
def test_ink_takes_no_tissue_away_beside_it(tissue, tmp_path, pale):
    truth = shape_of_tissue()
    slide = with_tissue(glass_slide(GLASSES["grey"]), GLASSES["grey"], tissue, truth, pale)
    strokes = np.zeros_like(truth)
    for number, colour in enumerate(INKS.values()):
        slide, stroke = with_ink(slide, np.array(colour), 50 + 75 * number)
        strokes |= stroke
    mask = mask_of(as_jpeg(slide, tmp_path))
    aside = ~grown(strokes, 48)
    assert mask[truth & aside].mean() > 0.97
    assert mask[~grown(truth, 64) & strokes].mean() < 0.05
    assert (mask & ~grown(truth, 56) & aside).sum() < 0.03 * truth.sum()


def ring(outer_um, inner_um):
    y, x = np.ogrid[:200, :200]
    radius_um = np.hypot(y - 100, x - 100) * UM
    picture = np.full((200, 200, 3), 243, np.uint8)
    picture[(radius_um < outer_um) & (radius_um >= inner_um)] = (190, 104, 188)
    return picture


def test_small_holes_are_filled_and_large_ones_kept():
    assert mask_of(ring(600, 150))[100, 100]
    assert not mask_of(ring(700, 400))[100, 100]
    # open to the slide's edge it is glass
    assert not mask_of(ring(600, 200)[100:])[0, 100]


def test_gaps_of_fat_are_closed():
    picture = np.full((200, 200, 3), 243, np.uint8)
    # walls of one pixel around cells of 72 um
    picture[40:160:9, 40:160] = picture[40:160, 40:160:9] = (215, 170, 205)
    mask = mask_of(picture)
    assert mask[40:155, 40:155].all()
    assert mask.mean() < 0.5


def test_specks_are_left_out_and_fragments_kept():
    assert not mask_of(ring(50, 0)).any()
    assert mask_of(ring(90, 0))[100, 100]


def test_margin_is_added_around_tissue():
    mask = mask_of(ring(400, 0))
    radius_um = np.sqrt(mask.sum() / np.pi) * UM
    assert 400 + MARGIN_UM - UM <= radius_um <= 400 + MARGIN_UM + 2 * UM


def test_slide_smaller_than_a_speck_can_be_tissue():
    stained = np.broadcast_to(np.array([190, 104, 188], np.uint8), (3, 4, 3))
    assert mask_of(stained).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (700, 1)])
@pytest.mark.parametrize("value", [0, 128, 243, 255])
def test_thumbnails_of_a_few_grey_pixels_are_no_tissue(shape, value):
    mask = mask_of(np.full((*shape, 3), value, np.uint8))
    assert mask.shape == shape
    assert not mask.any()


def test_same_thumbnail_gives_same_mask_and_is_left_as_it_is(tissue):
    before = tissue.copy()
    first, second = find_tissue(tissue, 32, 0.25), find_tissue(tissue, 32, 0.25)
    assert np.array_equal(first.grid, second.grid)
    assert np.array_equal(tissue, before)
    assert first.step0 == 32


@pytest.mark.parametrize("glass", ["grey", "pink", "blue"])
def test_unread_places_are_tissue_and_change_nothing_beside_them(tissue, tmp_path, glass):
    truth = shape_of_tissue()
    slide = as_jpeg(with_tissue(glass_slide(GLASSES[glass]), GLASSES[glass], tissue, truth, 0.5), tmp_path)
    whole = mask_of(slide)
    for rows, columns in [((100, 164), (200, 264)), ((0, 32), (0, 32)), ((0, HEIGHT), (150, WIDTH))]:
        unread = np.zeros_like(truth)
        unread[slice(*rows), slice(*columns)] = True
        broken = np.where(unread[..., None], np.uint8(255), slide)
        mask = find_tissue(broken, UM / MPP0, MPP0, unread).grid
        assert mask[unread].all()
        # it takes nothing away beside it, and adds at most what gaps are closed by
        assert (mask | ~whole)[~unread].mean() > 0.999
        away = ~grown(unread, 2 * CLOSING_UM + MARGIN_UM)
        assert np.mean(mask[away] != whole[away]) < 0.005
    nothing = np.ones_like(truth)
    assert find_tissue(np.full_like(slide, 255), UM / MPP0, MPP0, nothing).grid.all()
    assert np.array_equal(find_tissue(slide, UM / MPP0, MPP0, ~nothing).grid, whole)
