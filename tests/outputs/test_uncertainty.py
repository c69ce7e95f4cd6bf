"""uncertainty.png, pixel by pixel, and its colours beside matplotlib's."""

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from segmented_slides import segmented

from lightmuseg.engine.entropy import BLOCK, LEVELS, UNKNOWN
from lightmuseg.outputs.uncertainty import BAR_HEIGHT, BAR_WIDTH, OPACITY, colours, write


@pytest.fixture
def write_uncertainty(monkeypatch):
    """Writes the picture of blocks [h, w] whose side is ``block0`` level-0 pixels."""

    def write_blocks(path, thumbnail, uncertainty, step0, block0, mpp0):
        monkeypatch.setattr("lightmuseg.outputs.segmented.uncertainty_map", lambda class_map: uncertainty)
        downsample = block0 / BLOCK
        class_map = SimpleNamespace(
            width=1, height=1, downsample=downsample, mpp=mpp0 * downsample,
            bands=lambda height: [np.zeros((1, 1), np.uint8)],
        )  # fmt: skip
        write(path, segmented(class_map, picture=thumbnail, step0=step0))

    return write_blocks


def test_colours_are_those_of_magma_the_other_way_round():
    values = np.linspace(0, 1, 101)
    expected = 255 * mpl.colormaps["magma"](1 - 0.9 * values)[:, :3]
    # between nine colours that are given
    assert np.abs(colours(values) - expected).max() < 8
    brightness = colours(values) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(brightness) < 0).all()


@pytest.mark.parametrize(
    ("thumbnail_size", "map_size", "step0", "block0"),
    [((60, 80), (30, 40), 16.0, 32.0), ((61, 83), (4, 6), 5.03, 76.7), ((20, 25), (60, 75), 96.0, 32.0)],
)
def test_each_pixel_has_the_colour_of_the_block_under_its_middle(
    tmp_path, write_uncertainty, thumbnail_size, map_size, step0, block0
):
    random = np.random.default_rng(0)
    uncertainty = random.integers(0, 255, map_size, np.uint8)
    uncertainty[random.random(map_size) < 0.2] = UNKNOWN
    thumbnail = random.integers(0, 256, (*thumbnail_size, 3), np.uint8)
    write_uncertainty(tmp_path / "u.png", thumbnail, uncertainty, step0, block0, 0.25)
    with Image.open(tmp_path / "u.png") as image:
        picture = np.asarray(image)[: thumbnail_size[0], : thumbnail_size[1]]
    for row, column in np.ndindex(*thumbnail_size):
        place = (min(int((n + 0.5) * step0 / block0), side - 1) for n, side in zip((row, column), map_size))
        value = uncertainty[tuple(place)]
        red, green, blue = map(int, thumbnail[row, column])
        pale = 255 - (255 - (0.299 * red + 0.587 * green + 0.114 * blue)) / 2
        expected = np.full(3, pale)
        if value != UNKNOWN:
            expected = OPACITY * colours(np.array([value / LEVELS]))[0] + (1 - OPACITY) * pale
        assert np.abs(picture[row, column] - expected).max() < 3


def test_strip_below_has_a_scale_bar_and_the_bar_of_colours(tmp_path, write_uncertainty):
    thumbnail = np.full((100, 600, 3), 255, np.uint8)
    write_uncertainty(tmp_path / "u.png", thumbnail, np.full((4, 20), UNKNOWN, np.uint8), 8.0, 32.0, 0.5)
    with Image.open(tmp_path / "u.png") as image:
        strip = np.asarray(image.convert("RGB")).astype(int)[100:]
    # 4 um to a pixel: of at most 120 pixels 0.2 mm are the longest round length
    black = (strip == 0).all(-1)
    assert max(len(run) for row in black for run in "".join(".#"[int(dark)] for dark in row).split(".")) == 50
    coloured = np.ptp(strip, axis=2) > 20
    rows, columns = np.flatnonzero(coloured.any(1)), np.flatnonzero(coloured.any(0))
    assert len(rows) == BAR_HEIGHT
    assert BAR_WIDTH - 1 <= np.ptp(columns) + 1 <= BAR_WIDTH
    middle = strip[rows[BAR_HEIGHT // 2], columns]
    assert middle[0].sum() > middle[-1].sum() + 300


def test_two_runs_write_the_same_bytes(tmp_path, write_uncertainty):
    uncertainty = np.random.default_rng(0).integers(0, 255, (30, 40), np.uint8)
    for name in ("a.png", "b.png"):
        write_uncertainty(tmp_path / name, np.full((60, 80, 3), 200, np.uint8), uncertainty, 16.0, 32.0, 0.25)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
