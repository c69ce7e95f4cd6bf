"""What makes a slide's results doubtful is told, and nothing else."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter

from lightmuseg.areas.area import TissueMask, WholeSlide
from lightmuseg.engine.counts import Counts
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.slides.damage import Damage
from lightmuseg.slides.quality import BLURRED, PLACES, places_blur, tissue_corners, warnings_by_places, warnings_of
from lightmuseg.wsi.low_power import LowPower
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers import UnreadablePixels
from lightmuseg.wsi.readers.opening import open_slide

# of pixels of the map at 0.5 um: more than the least
MUCH = 2_000_000


def cells(side=1024):
    """Something like nuclei in tissue: dark discs of 6 to 10 um with sharp borders, at 0.25 um/px."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    pixels = np.full((side, side), 190, np.float32)
    for cy, cx, radius in zip(*rng.uniform(0, side, (2, side)), rng.uniform(12, 20, side)):
        box = np.s_[max(0, int(cy - radius)) : int(cy + radius) + 2, max(0, int(cx - radius)) : int(cx + radius) + 2]
        pixels[box][np.hypot(y[box] - cy, x[box] - cx) < radius] = 90
    return pixels


def write(path, grey, mpp=0.25):
    stated = {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"} if mpp else {}
    pixels = np.repeat(np.uint8(grey.round())[..., None], 3, axis=2)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    tifffile.imwrite(path, pixels, **stated, **options)
    return path


def warnings(path, area=None, analysed=MUCH, mpp=None, unread=(0, 0), view_of=ModelView, finer=0, picture=None):
    with open_slide(path, mpp=mpp) as reader:
        view = view_of(reader, 0.25)
        area = area or WholeSlide(reader.levels[0].width, reader.levels[0].height)
        plan = plan_tiles((view.width, view.height), view.scale, area, 256, 0.25, 2)
        counts = Counts([analysed, 0], unread[1])
        damage = Damage(unread[0], finer)
        return warnings_of(view, area, counts, 0.5, damage, picture) + warnings_by_places(view, area, plan)


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    return write(tmp_path_factory.mktemp("slides") / "sharp.tif", cells())


def test_good_slide_has_no_warnings(sharp):
    assert warnings(sharp) == []


def test_format_in_which_damage_can_pass_unseen_is_told(sharp):
    class Hamamatsu(ModelView):
        def __init__(self, reader, mpp):
            reader.unchecked = "hamamatsu"
            super().__init__(reader, mpp)

    (warning,) = warnings(sharp, view_of=Hamamatsu)
    assert warning.startswith("checked: ")
    assert "hamamatsu" in warning


def test_slide_out_of_focus_is_told_whatever_its_brightness(sharp, tmp_path):
    for number, (factor, plus) in enumerate([(1, 0), (0.3, 150)]):
        # sigma 2 um
        blurred = write(tmp_path / f"{number}.tif", gaussian_filter(cells(), 8) * factor + plus)
        (warning,) = warnings(blurred)
        assert warning.startswith("focus: ")
        assert re.search(r"\b(\d\d) of \1 places", warning)
        pale = write(tmp_path / f"sharp{number}.tif", cells() * factor + plus)
        assert warnings(pale) == []


def test_slide_out_of_focus_in_a_half_is_told(tmp_path):
    grey = cells()
    grey[:, :512] = gaussian_filter(grey, 10)[:, :512]
    (warning,) = warnings(write(tmp_path / "half.tif", grey))
    assert warning.startswith("focus: ")


def test_focus_is_measured_where_there_is_tissue(tmp_path):
    # glass is without any edge, and its noise tells nothing
    grey = np.random.default_rng(0).normal(240, 1, (1024, 1024))
    grey[:, 512:] = cells()[:, 512:]
    grid = np.zeros((32, 32), bool)
    grid[:, 17:] = True
    assert warnings(write(tmp_path / "slide.tif", grey), TissueMask(grid, 32.0)) == []


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"])
def test_real_slide_is_sharp_until_it_is_blurred(data, name):
    with open_slide(data / "slides" / name, mpp=0.5) as reader:
        view = ModelView(reader, 0.25)

        def blurred(corners_m, size, sigma_um=2.0):
            tiles = view.read_batch(corners_m, size)
            return [np.asarray(Image.fromarray(tile).filter(ImageFilter.GaussianBlur(4 * sigma_um))) for tile in tiles]

        area = WholeSlide(reader.levels[0].width, reader.levels[0].height)
        dark = np.asarray(Image.fromarray(reader.read(0, 0, 0, int(area.bounds0[2]), int(area.bounds0[3]))).reduce(32))
        area = TissueMask(dark.min(2) < 200, 32.0)
        plan = plan_tiles((view.width, view.height), view.scale, area, 512, 0.0, 2)
        corners_m = tissue_corners(view, area, plan)
        before = places_blur(view, corners_m, plan.tile_size)
        other = SimpleNamespace(
            reader=reader, scale=view.scale, width=view.width, height=view.height, read_batch=blurred
        )
        after = places_blur(other, corners_m, plan.tile_size)
    assert 3 < len(before) <= PLACES
    assert max(before) < BLURRED < min(after)


def test_number_of_places_is_bounded_and_those_that_cannot_be_read_are_left_out(sharp):
    asked = []

    class Broken(ModelView):
        def read_batch(self, corners_m, size):
            asked.extend(corners_m)
            return [UnreadablePixels("corrupt") for _ in corners_m]

    assert warnings(sharp, view_of=Broken) == []
    assert 0 < len(asked) <= PLACES


def test_plain_and_tiny_slides_are_not_judged(tmp_path):
    assert warnings(write(tmp_path / "plain.tif", np.full((600, 600), 200.0))) == []
    assert warnings(write(tmp_path / "tiny.tif", cells(40))) == []


def test_scale_given_by_hand_is_told(sharp, tmp_path):
    silent = write(tmp_path / "silent.tif", cells(), mpp=None)
    (warning,) = warnings(silent, mpp=0.25)
    assert warning.startswith("scale: ")
    assert "states no um per pixel, 0.25 was given" in warning
    (warning,) = warnings(sharp, mpp=0.5)
    assert "states 0.25 um per pixel, but 0.5 was given" in warning
    assert warnings(sharp, mpp=0.2501) == []


def test_little_tissue_and_none_are_told(sharp):
    # a disc of 0.6 mm has 0.283 mm2
    assert warnings(sharp, analysed=1_130_000) == []
    (little,) = warnings(sharp, analysed=400_000)
    assert little.startswith("tissue: only 0.1 mm2")
    (none,) = warnings(sharp, analysed=0)
    assert none.startswith("tissue: none")


def test_places_that_could_not_be_read_are_told(sharp):
    assert warnings(sharp, unread=(1, 40_000)) == ["unread: 1 tile could not be read whole, 0.01 mm2 are left out."]
    assert warnings(sharp, unread=(3, 40_000)) == ["unread: 3 tiles could not be read whole, 0.01 mm2 are left out."]


def test_levels_that_another_one_stands_for_are_told(sharp):
    assert warnings(sharp, finer=2) == [
        "level: parts of level 0 could not be read; a finer one stands for it in 2 tiles."
    ]
    # 1000 pixels of 8 um
    picture = LowPower(None, None, 32.0, 1, 1000, ())
    assert warnings(sharp, picture=picture) == [
        "level: of level 1 0.064 mm2 could not be read; other levels were looked at for tissue."
    ]
    assert warnings(sharp, picture=LowPower(None, None, 32.0, 1, 0, ("corrupt",))) == []
