"""A scale that is too coarse, or that the nuclei contradict, is told; a true one is not."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import rgb_from_hed

from lightmuseg.areas.tissue import tissue_of
from lightmuseg.engine.counts import Counts
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.slides.damage import Damage
from lightmuseg.slides.nuclei import fields_at, nuclei_um
from lightmuseg.slides.quality import nuclei_warning, tissue_corners, warnings_by_places, warnings_of
from lightmuseg.wsi.model_view import ModelView
from lightmuseg.wsi.readers.opening import open_slide


def stained(haematoxylin, eosin=0.25, noise=4.0):
    """uint8 [h, w, 3] of tissue with so much of each stain, by Beer and Lambert's law."""
    stains = np.stack([haematoxylin, np.full_like(haematoxylin, eosin), np.zeros_like(haematoxylin)], axis=2)
    pixels = 255 * 10 ** -(stains @ rgb_from_hed)
    return np.uint8((pixels + np.random.default_rng(1).normal(0, noise, pixels.shape)).clip(0, 255))


def tissue(diameter, side=256, count=40, dense=0.6):
    """A field with round nuclei of one diameter, in pixels, none over another."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    haematoxylin, places = np.full((side, side), 0.05), []
    for cy, cx in rng.uniform(0, side, (20 * count, 2)):
        if len(places) < count and all(np.hypot(cy - a, cx - b) > 1.3 * diameter for a, b in places):
            places.append((cy, cx))
            haematoxylin[np.hypot(y - cy, x - cx) < diameter / 2] = dense
    return stained(haematoxylin)


def scale_warnings(path, mpp=None):
    """What ``run.json`` would say of the scale that is not about where it comes from."""
    with open_slide(path, mpp=mpp) as reader:
        view = ModelView(reader, 0.25)
        area = tissue_of(reader)
        plan = plan_tiles((view.width, view.height), view.scale, area, 512, 0.0, 2)
        said = warnings_of(view, area, Counts([1, 0], 0), 0.5, Damage()) + warnings_by_places(view, area, plan)
        return [line for line in said if line.startswith("scale: ") and "given by hand" not in line]


@pytest.mark.parametrize("diameter", [8, 16, 30])
def test_nuclei_are_as_thick_as_they_were_drawn(diameter):
    fields = [tissue(diameter, count=20)] * 8
    assert nuclei_um(fields, 0.25) == pytest.approx(0.25 * diameter, rel=0.12)
    assert nuclei_um(fields, 0.5) == pytest.approx(0.5 * diameter, rel=0.12)
    # pale and dense stains are alike
    assert nuclei_um([tissue(diameter, count=20, dense=0.3)] * 8, 0.25) == pytest.approx(0.25 * diameter, rel=0.15)


def test_nothing_is_told_of_what_has_no_nuclei():
    plain = [stained(np.full((256, 256), 0.1), noise=noise) for noise in (0, 4, 12)]
    glass = [np.full((256, 256, 3), 240, np.uint8), np.zeros((256, 256, 3), np.uint8)]
    assert nuclei_um([*plain, *glass], 0.25) is None
    assert nuclei_um([], 0.25) is None
    # too few of them
    assert nuclei_um([tissue(16, count=20)], 0.25) is None
    # parts of all sizes, as on an overview
    assert nuclei_um([tissue(8, count=40), tissue(60, count=8)] * 10, 0.25) is None


@pytest.mark.parametrize(
    ("mpp", "told"), [(0.25, []), (0.5, []), (0.55, []), (1.0, ["4 times coarser"]), (2.0, ["8 times coarser"])]
)
@pytest.mark.parametrize("kind", ["slide.tif", "tile.png"])
def test_slide_that_is_far_coarser_than_the_model_is_told(tmp_path, mpp, told, kind):
    pixels = stained(np.full((512, 512), 0.1))
    path = tmp_path / kind
    if path.suffix == ".tif":
        stated = {"resolution": (10_000 / mpp,) * 2, "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **stated)
    else:
        Image.fromarray(pixels).save(path)
    found = scale_warnings(path, None if path.suffix == ".tif" else mpp)
    assert len(found) == len(told)
    assert all(text in line and f"{mpp:g} um per pixel" in line for text, line in zip(told, found))


# Each a patient: its file, and its um/px.
TRUE = [
    ("bcss/rgbs/TCGA-A2-A0D2-DX1_xmin96887_ymin22299_MPP-0.2500.png", 0.3),
    ("bcss/rgbs/TCGA-A2-A1G6-DX1_xmin57706_ymin69514_MPP-0.2500.png", 0.3),
    ("bcss_05um/AA10_mosaic_rgb.png", 0.5),
    ("bcss_05um/AA15_mosaic_rgb.png", 0.5),
    ("brecahad/images/Case_10-07.jpg", 0.22),
    ("brecahad/images/Case_11-12.jpg", 0.22),
    ("brecahad/images/Case_12-02.jpg", 0.22),
    ("camelyon/images/10671.png", 0.5),
    ("camelyon/images/10688.png", 0.5),
    ("histolytics/hgsc_nest.jpg", 0.5),
    ("histolytics/hgsc_stromal_he.jpg", 0.5),
    ("slides/CMU-1-Small-Region.svs", 0.499),
    ("slides/TCGA-CR-7395-01A-01-TS1.svs", 0.5),
]
# Folders of single fields, and their um/px.
FIELDS = {"brecahad": 0.22, "camelyon": 0.5}
TIMES = (1 / 4, 1 / 3, 1 / 2, 1, 2, 3, 4)


def mistaken(path, mpp):
    return [line for line in scale_warnings(path, mpp) if "nuclei are" in line]


@pytest.mark.parametrize(("name", "mpp"), TRUE)
def test_nuclei_do_not_contradict_a_true_scale(data, name, mpp):
    assert mistaken(data / name, mpp) == []


def contradicts(path, mpp):
    """Whether the nuclei do, without looking for other warnings."""
    with open_slide(path, mpp=mpp) as reader:
        view, area = ModelView(reader, 0.25), tissue_of(reader)
        plan = plan_tiles((view.width, view.height), view.scale, area, 512, 0.0, 2)
        return bool(nuclei_warning(mpp, *fields_at(view, tissue_corners(view, area, plan), 512)))


@pytest.mark.nightly
def test_so_many_wrong_scales_are_contradicted_as_the_documentation_says(data):
    """All 67 images, by how many times the um/px that is given is the true one."""
    fields = [(path, mpp) for name, mpp in FIELDS.items() for path in sorted((data / name / "images").iterdir())]
    regions = [(data / name, mpp) for name, mpp in TRUE if name.split("/")[0] not in FIELDS]
    assert (len(regions), len(fields)) == (8, 59)
    for images, row in ((regions, "regions, of 8"), (fields, "fields, of 59")):
        found = [sum(contradicts(path, mpp * times) for path, mpp in images) for times in TIMES]
        (counts,) = re.findall(rf"{row} +([\d ]+)", nuclei_um.__doc__)
        assert found == [int(count) for count in counts.split()]


def test_small_picture_of_a_scale_that_is_wrong_by_four_is_told(data):
    """512 x 512 pixels, which are less than a tile of the network."""
    assert len(mistaken(data / "camelyon/images/10671.png", 0.125)) == 1


# the smaller ones of other patients; the nightly test does all
@pytest.mark.parametrize("index", [2, 3])
@pytest.mark.parametrize("times", [1 / 3, 4])
def test_scale_that_is_wrong_by_three_or_more_is_told_with_a_better_one(data, index, times):
    name, mpp = TRUE[index]
    (line,) = mistaken(data / name, mpp * times)
    assert f"at {mpp * times:g} um per pixel" in line
    assert "--mpp" in line
    suggested = float(line.split("has rather ")[1].split(". ")[0])
    assert mpp / 2 < suggested < mpp * 2


def test_slide_of_stated_scale_is_told_too(data, tmp_path):
    """An export at a quarter of the pixels that kept the scan's um/px."""
    with Image.open(data / TRUE[1][0]) as image:
        pixels = np.asarray(image.convert("RGB").reduce(4))
    path = tmp_path / "export.tif"
    tifffile.imwrite(
        path, pixels, tile=(256, 256), photometric="rgb", resolution=(40_000, 40_000), resolutionunit="CENTIMETER"
    )
    assert len(mistaken(path, None)) == 1


def test_blurred_slide_is_not_said_to_have_another_scale(data, tmp_path):
    """It swells nuclei; that it is out of focus is told already."""
    with Image.open(data / TRUE[0][0]) as image:
        pixels = np.asarray(image.convert("RGB"))[:1500, :1500]
    blurred = np.uint8(gaussian_filter(pixels.astype(np.float32), (2 / 0.3, 2 / 0.3, 0)))
    Image.fromarray(blurred).save(tmp_path / "blurred.png")
    assert nuclei_um([blurred[:256, :256], blurred[500:756, 500:756], blurred[:256, 1000:1256]] * 8, 0.3) > 12
    assert mistaken(tmp_path / "blurred.png", 0.3) == []
