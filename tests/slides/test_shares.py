"""Analysed and tissue in all results: a painted slide of a known area, and a network that takes glass for tumor."""

import csv
import json

import numpy as np
import pytest
import shapely.geometry
import tifffile
import zarr
from PIL import Image
from stand_in_networks import Dark

from lightmuseg.errors import InputError
from lightmuseg.slides import Options, segment_slides

SIDE, RADIUS, MPP = 520, 200, 4.0
DARK, PALE, GLASS = (190, 104, 188), (225, 160, 210), (243, 242, 244)


class GlassIsTumor(Dark):
    """Calls what is dark or very bright tumor."""

    def __call__(self, tiles):
        return np.abs(super().__call__(tiles) + 52) - 52


@pytest.fixture(scope="module")
def truth():
    """bool [520, 520]: tissue, of which the left 40% are dark."""
    y, x = np.ogrid[:SIDE, :SIDE]
    return np.hypot(y + 0.5 - SIDE / 2, x + 0.5 - SIDE / 2) < RADIUS


@pytest.fixture(scope="module")
def tumor(truth):
    return truth & (np.arange(SIDE) < SIDE / 2 - 0.2 * RADIUS)


@pytest.fixture
def slide(tmp_path, truth, tumor):
    picture = np.where(truth[..., None], np.where(tumor[..., None], DARK, PALE), GLASS).astype(np.float32)
    picture += np.random.default_rng(0).normal(0, 1, picture.shape)
    Image.fromarray(picture.clip(0, 255).round().astype(np.uint8)).save(tmp_path / "slide.png")
    return tmp_path / "slide.png"


def segment(slide, output, network=None, **options):
    """A map pixel is one of the slide."""
    chosen = Options(output_dir=output, class_names=("tumor",), mpp=MPP / 2, slide_mpp=MPP, batch_size=3, **options)
    segment_slides([slide], network or GlassIsTumor(256), chosen, {})
    folder = output / slide.stem
    measured = {row["measure"]: float(row["value"]) for row in csv.DictReader((folder / "measurements.csv").open())
                if row["value"]}  # fmt: skip
    return tifffile.imread(folder / "classes.tif"), measured, json.loads((folder / "run.json").read_text()), folder


def test_shares_are_of_tissue_and_glass_is_never_tumor(slide, tmp_path, truth, tumor):
    classes, measured, record, folder = segment(slide, tmp_path / "out", probabilities=True)
    mm2 = (MPP / 1000) ** 2
    assert measured["tissue_area"] == pytest.approx(truth.sum() * mm2, rel=0.005)
    assert measured["tumor_share"] == pytest.approx(tumor.sum() / truth.sum(), rel=0.005)
    assert measured["tumor_area"] + measured["other_tissue_area"] == pytest.approx(measured["tissue_area"])
    # 32 um around a disc of 800
    assert 1.06 < measured["analysed_area"] / measured["tissue_area"] < 1.12
    assert (classes[~truth] == 1).mean() < 0.001
    assert record["analysed_share"] == pytest.approx(measured["analysed_area"] / mm2 / SIDE**2, rel=0.01)
    assert record["tissue_share"] == pytest.approx(truth.sum() / SIDE**2, rel=0.01)
    drawn = json.loads((folder / "regions.geojson").read_text())["features"]
    largest, *specks = sorted((shapely.geometry.shape(each["geometry"]).area for each in drawn), reverse=True)
    assert largest == pytest.approx(tumor.sum(), rel=0.01)
    assert sum(specks) < 0.002 * largest
    probabilities = zarr.open_group(folder / "probabilities.zarr", mode="r")["0"][0]
    assert (probabilities[~truth] > 0).mean() < 0.001
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"{100 * record['tissue_share']:.1f} % tissue" in page


def test_without_a_tissue_mask_everything_is_analysed_and_tissue(slide, tmp_path, truth, tumor):
    _, measured, record, _ = segment(slide, tmp_path / "out", tissue_mask=False)
    assert measured["tissue_area"] == measured["analysed_area"] == pytest.approx(SIDE**2 * (MPP / 1000) ** 2)
    assert record["analysed_share"] == record["tissue_share"] == 1
    assert measured["tumor_share"] == pytest.approx((tumor | ~truth).mean(), abs=0.01)


def test_region_has_the_tissue_inside_it(slide, tmp_path, truth):
    classes, *_ = segment(slide, tmp_path / "whole")
    part, measured, *_ = segment(slide, tmp_path / "part", region="20,200,240,120")
    inside = np.zeros_like(truth)
    inside[200:320, 20:260] = True
    assert measured["tissue_area"] == pytest.approx((truth & inside).sum() * (MPP / 1000) ** 2, rel=0.005)
    assert measured["analysed_area"] > 1.02 * measured["tissue_area"]
    assert np.array_equal(part, np.where(inside, classes, 0))


def test_interrupted_run_ends_in_the_same_bytes(slide, tmp_path):
    def stop(batch):
        if batch == 7:
            raise KeyboardInterrupt

    *_, whole = segment(slide, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        segment(slide, tmp_path / "parts", GlassIsTumor(256, stop))
    *_, parts = segment(slide, tmp_path / "parts", resume=True)
    names = sorted(path.name for path in whole.iterdir() if path.name != "run.json")
    assert names == sorted(path.name for path in parts.iterdir() if path.name != "run.json")
    assert all((whole / name).read_bytes() == (parts / name).read_bytes() for name in names)


def test_rows_of_an_older_format_are_not_continued(slide, tmp_path, monkeypatch):
    def stop(batch):
        if batch == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr("lightmuseg.slides.job.FORMAT", 3)
    with pytest.raises(KeyboardInterrupt):
        segment(slide, tmp_path / "out", GlassIsTumor(256, stop))
    monkeypatch.undo()
    with pytest.raises(InputError, match="rows_format 3, not 4"):
        segment(slide, tmp_path / "out", resume=True)
