"""overlay.png, pixel by pixel and by what its legend shows."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from segmented_slides import segmented

from lightmuseg.classes import COLOURS
from lightmuseg.outputs.overlay import write
from lightmuseg.pictures import OPACITY

NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")
COLOUR = {0: (255, 255, 255), **dict(enumerate(COLOURS.values(), 1))}


def class_map_of(classes, downsample=2.0, mpp=0.5, names=NAMES):
    def bands(height):
        return (classes[top : top + height] for top in range(0, len(classes), height))

    height, width = classes.shape
    return SimpleNamespace(width=width, height=height, mpp=mpp, downsample=downsample, class_names=names, bands=bands)


def write_overlay(path, thumbnail, class_map, step0):
    write(path, segmented(class_map, picture=thumbnail, step0=step0))


def picture_of(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(
    ("thumbnail_size", "map_size", "step0", "downsample"),
    [
        ((60, 80), (600, 800), 20.0, 2.0),
        ((60, 80), (613, 811), 20.31, 2.0),
        ((37, 91), (37, 91), 2.0, 2.0),
        # more pixels than the map has, and rounded up past its edge
        ((90, 151), (60, 100), 1.35, 2.03),
        ((1, 1), (1, 1), 4.0, 4.0),
        ((1, 1), (700, 900), 1800.0, 2.0),
    ],
)
def test_each_pixel_has_the_colour_of_the_class_under_its_middle(tmp_path, thumbnail_size, map_size, step0, downsample):
    random = np.random.default_rng(0)
    classes = random.choice(np.array([0, 1, 2, 3, 4, 255], np.uint8), map_size)
    thumbnail = random.integers(0, 256, (*thumbnail_size, 3), np.uint8)
    write_overlay(tmp_path / "overlay.png", thumbnail, class_map_of(classes, downsample), step0)
    picture = picture_of(tmp_path / "overlay.png")
    for row, column in np.ndindex(*thumbnail_size):
        row_out = min(int((row + 0.5) * step0 / downsample), map_size[0] - 1)
        column_out = min(int((column + 0.5) * step0 / downsample), map_size[1] - 1)
        index = int(classes[row_out, column_out])
        if index == 255:
            # slanted stripes of two greys, four pixels wide
            assert tuple(picture[row, column]) == ((60,) * 3 if (row + column) // 4 % 2 else (128,) * 3)
            continue
        opacity = OPACITY if index else 0.0
        expected = (1 - opacity) * thumbnail[row, column] + opacity * np.array(COLOUR[index])
        assert np.abs(picture[row, column] - expected).max() <= 0.5 + 1e-6


def test_the_strip_below_names_the_classes_of_the_model_and_what_is_unread(tmp_path):
    thumbnail = np.full((300, 900, 3), 255, np.uint8)
    classes = np.zeros((300, 900), np.uint8)
    for unread in (False, True):
        classes[100:110] = 255 * unread
        write_overlay(tmp_path / "overlay.png", thumbnail, class_map_of(classes, names=NAMES[:2]), 2.0)
        picture = picture_of(tmp_path / "overlay.png")
        assert picture.shape[1] == 900
        shown = {tuple(map(int, colour)) for colour in picture[300:].reshape(-1, 3)}
        assert {COLOURS["tumor"], COLOURS["stroma"]} <= shown
        assert COLOURS["necrosis_or_debris"] not in shown
        striped = {(60, 60, 60), (128, 128, 128)}
        assert (striped <= {tuple(map(int, colour)) for colour in picture[100:110].reshape(-1, 3)}) is unread
        swatch = np.isin(picture[300:], (60, 128)).all(-1)
        assert bool(swatch.sum(0).max() >= 14) is unread


@pytest.mark.parametrize(("mpp", "downsample", "step0"), [(0.5, 2.0, 40.0), (0.5, 4.0, 13.7), (2.0, 8.0, 61.0)])
def test_the_scale_bar_is_one_two_or_five_of_a_power_of_ten(tmp_path, mpp, downsample, step0):
    thumbnail = np.full((200, 1000, 3), 255, np.uint8)
    size_out = int(200 * step0 / downsample) + 1, int(1000 * step0 / downsample) + 1
    class_map = class_map_of(np.zeros(size_out, np.uint8), downsample, mpp)
    write_overlay(tmp_path / "overlay.png", thumbnail, class_map, step0)
    black = (picture_of(tmp_path / "overlay.png")[200:] == 0).all(-1)
    pixels = max(len(run) for row in black for run in "".join(".#"[int(dark)] for dark in row).split("."))
    # a pixel of the thumbnail is step0 pixels of level 0, each mpp / downsample um
    um_per_pixel = step0 * (mpp / downsample)
    lengths = [times * 10.0**power for times in (1, 2, 5) for power in range(6)]
    nearest = min(lengths, key=lambda length: abs(length - pixels * um_per_pixel))
    assert abs(nearest / um_per_pixel - pixels) <= 0.5
    assert 1000 / 5 / 2.5 - 1 <= pixels <= 1000 / 5


def test_a_narrow_picture_gets_a_legend_of_several_lines(tmp_path):
    thumbnail = np.zeros((50, 30, 3), np.uint8)
    write_overlay(tmp_path / "overlay.png", thumbnail, class_map_of(np.zeros((50, 30), np.uint8)), 2.0)
    picture = picture_of(tmp_path / "overlay.png")
    rows = [np.flatnonzero((picture[50:] == colour).all(-1).any(1)).min() for colour in COLOURS.values()]
    assert rows == sorted(set(rows))
    written = np.flatnonzero((picture[50:] < 60).all(-1).any(0))
    # the names stand whole
    assert 150 < written.max() < picture.shape[1] - 5
    assert (picture[:50, :30] == 0).all()
    assert (picture[:50, 30:] == 255).all()


def test_two_runs_write_the_same_bytes(tmp_path):
    classes = np.random.default_rng(0).integers(0, 5, (300, 400), np.uint8)
    for name in ("a.png", "b.png"):
        write_overlay(tmp_path / name, np.full((30, 40, 3), 200, np.uint8), class_map_of(classes), 20.0)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
