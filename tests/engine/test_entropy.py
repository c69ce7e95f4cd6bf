"""The small map of entropy against numpy on the probabilities that the same run wrote."""

import csv
import json

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter
from scipy.stats import entropy

from lightmuseg.engine.entropy import LEVELS, UNKNOWN, Entropies, uncertainty_map
from lightmuseg.engine.rows import RowStore
from lightmuseg.errors import InputError
from lightmuseg.runtimes import RuntimeInfo
from lightmuseg.slides import Options, segment_slides

MULTI = ("tumor", "stroma")


class Doubtful:
    """A network that is the less sure the nearer a pixel's grey is to the border of two classes."""

    tile_size, output_stride, parity = 256, 2, None
    choice = "stand-in"
    info = RuntimeInfo("doubtful", "cpu", "float32")

    def __init__(self, out_channels):
        self.out_channels = out_channels

    def __call__(self, tiles):
        green = tiles[:, 1::2, 1::2, 1].astype(np.float32)[:, None]
        if self.out_channels == 1:
            return (127.5 - green) / 30
        return -np.abs(green - np.array([60, 128, 200], np.float32)[:, None, None]) / 20


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    rng = np.random.default_rng(0)
    pixels = gaussian_filter(rng.standard_normal((901, 1111, 3)), (12, 12, 0))
    pixels = np.uint8(np.clip(128 + 60 * pixels / pixels.std(), 0, 255))
    path = tmp_path_factory.mktemp("slides") / "smooth.tif"
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return path


@pytest.fixture
def kept(monkeypatch):
    """The map of uncertainty of a run; its rows are gone afterwards."""
    maps = []

    def keep(store):
        maps.append(uncertainty_map(store))
        return maps[-1]

    monkeypatch.setattr("lightmuseg.outputs.segmented.uncertainty_map", keep)
    return maps


def segment(slide, output, names, **options):
    options = {"tissue_mask": False, "probabilities": True, **options}
    runtime = Doubtful(1 if len(names) == 1 else 1 + len(names))
    segment_slides([slide], runtime, Options(output_dir=output, class_names=names, **options), {})
    return output / slide.stem


def entropy_of(folder):
    """Of each pixel of the map, as a share of the greatest, by scipy."""
    probabilities = zarr.open_group(folder / "probabilities.zarr", mode="r")["0"][:] / 255
    if len(probabilities) == 1:
        probabilities = np.concatenate([probabilities, 1 - probabilities])
    return entropy(np.maximum(probabilities, 1e-12), base=len(probabilities), axis=0)


@pytest.mark.parametrize(
    ("names", "output_mpp", "region"),
    [
        (("tumor",), 0.5, None),
        (MULTI, 0.5, "101,203,777,512"),
        (("tumor",), 1.0, "101,203,777,512"),
        (MULTI, 1.0, None),
    ],
)
def test_map_is_the_entropy_of_the_probabilities(slide, tmp_path, kept, names, output_mpp, region):
    folder = segment(slide, tmp_path, names, output_mpp=output_mpp, region=region)
    expected = entropy_of(folder)
    step0 = output_mpp / 0.25
    y0, x0 = (np.arange(side) * step0 + step0 / 2 for side in expected.shape)
    if region:
        inside = ((y0 >= 203) & (y0 < 203 + 512))[:, None] & ((x0 >= 101) & (x0 < 101 + 777))
        expected = np.where(inside, expected, np.nan)
    height, width = (-(-side // 16) for side in expected.shape)
    padded = np.full((16 * height, 16 * width), np.nan)
    padded[: len(expected), : expected.shape[1]] = expected
    sampled = padded.reshape(height, 16, width, 16)[:, ::4, :, ::4]
    known = (~np.isnan(sampled)).sum(axis=(1, 3))
    means = np.where(known > 0, np.nansum(sampled, axis=(1, 3)) / np.maximum(known, 1), np.nan)
    (found,) = (np.where(levels == UNKNOWN, np.nan, levels / LEVELS) for levels in kept)
    # probabilities are kept in 255 steps, and those of up to half a step, as 0, lack up to 0.01 each
    np.testing.assert_allclose(found, means, atol=0.025)
    assert np.isnan(found).any() == (region is not None)
    assert np.nanmax(found) - np.nanmin(found) > 0.2


def test_means_of_the_classes_are_measured(slide, tmp_path):
    folder = segment(slide, tmp_path, MULTI)
    sampled = entropy_of(folder)[::4, ::4]
    classes = tifffile.imread(folder / "classes.tif")[::4, ::4]
    measured = {row["measure"]: row for row in csv.DictReader((folder / "measurements.csv").open())}
    for index, name in enumerate(["other_tissue", *MULTI]):
        value = float(measured[f"{name}_uncertainty"]["value"])
        assert value == pytest.approx(sampled[classes == index].mean(), abs=0.02)
    assert float(measured["tissue_uncertainty"]["value"]) == pytest.approx(sampled.mean(), abs=0.02)


def test_map_is_averaged_over_what_is_known(tmp_path):
    levels = np.random.default_rng(0).integers(0, 255, (701, 35), dtype=np.uint8)
    levels[8:20, 4:9] = UNKNOWN
    levels[1, 1] = UNKNOWN

    class Store:
        def bands(self, height, name):
            return (levels[top : top + height] for top in range(0, len(levels), height))

    found = uncertainty_map(Store())
    assert found.shape == (176, 9)
    for row, column in np.ndindex(*found.shape):
        block = levels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        known = block[block != UNKNOWN]
        assert found[row, column] == (np.rint(known.mean()) if known.size else UNKNOWN)


def test_entropies_of_rows_add_up_to_the_whole():
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, (40, 30), dtype=np.uint8)
    levels = random.integers(0, 256, (40, 30), dtype=np.uint8)
    whole, parts = Entropies.of(MULTI), Entropies.of(MULTI)
    whole.add(classes, levels)
    for top in range(0, 40, 7):
        part = Entropies.of(MULTI)
        part.add(classes[top : top + 7], levels[top : top + 7])
        parts.merge(Entropies(**json.loads(json.dumps(vars(part)))))
    assert parts == whole
    assert whole.means() == pytest.approx(
        [levels[(classes == index) & (levels < 255)].mean() / LEVELS for index in range(3)]
    )
    assert whole.mean() == pytest.approx(levels[levels < 255].mean() / LEVELS)
    assert Entropies.of(MULTI).means() == [None, None, None]
    assert Entropies.of(MULTI).mean() is None


def test_rows_of_another_format_are_not_gone_on_with(slide, tmp_path, monkeypatch):
    save = RowStore.save

    def stop(self, row, *arrays):
        save(self, row, *arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(RowStore, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        segment(slide, tmp_path, MULTI)
    monkeypatch.undo()
    monkeypatch.setattr("lightmuseg.slides.job.FORMAT", 99)
    with pytest.raises(InputError, match="rows_format 4, not 99"):
        segment(slide, tmp_path, MULTI, resume=True)
