"""Boxes at the model's um/px equal those of the slide resampled in one piece, wherever they lie."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image

from lightmuseg.wsi.low_power import thumbnail
from lightmuseg.wsi.model_view import ModelView, PartlyRead, read_box
from lightmuseg.wsi.readers import Level, SlideReader, UnreadablePixels
from lightmuseg.wsi.readers.reader import PART

MPP = 0.25


class Pixels(SlideReader):
    """A slide whose levels are arrays; what is read is noted, and boxes over damaged places are errors."""

    backend = "array"

    def __init__(self, *levels, damaged=(), workers=1, tile=0):
        self.mpp, self.tile = MPP, tile
        self.pixels, self.damaged, self.read_areas = levels, damaged, []
        super().__init__("array", workers)

    def _opened(self):
        height, width = self.pixels[0].shape[:2]
        self.levels = tuple(
            Level(w, h, (width / w + height / h) / 2, self.tile, self.tile)
            for h, w in (level.shape[:2] for level in self.pixels)
        )

    def _decoded(self, level, xl, yl, width, height):
        assert 0 <= xl < xl + width <= self.levels[level].width
        assert 0 <= yl < yl + height <= self.levels[level].height
        self.read_areas.append((level, width * height))
        for index, x, y in self.damaged:
            if index == level and xl <= x < xl + width and yl <= y < yl + height:
                raise UnreadablePixels(f"{self.path}: {x}, {y}")
        return self.pixels[level][yl : yl + height, xl : xl + width]


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def pyramid(width, height, count=3, seed=0):
    images = [Image.fromarray(picture(width, height, seed))]
    while len(images) < count:
        images.append(images[-1].reduce(2))
    return [np.array(image) for image in images]


def resampled_whole(pixels, step, size):
    """A level resampled in one piece; where the rounded size reaches over its edge, the edge goes on."""
    width, height = size
    over = [max(0, math.ceil(n * step) - limit) for n, limit in zip(size, pixels.shape[1::-1])]
    pixels = np.pad(pixels, ((0, over[1]), (0, over[0]), (0, 0)), mode="edge")
    how = Image.Resampling.LANCZOS if step > 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize(size, how, box=(0, 0, width * step, height * step)))


def cut(whole, corner, size):
    """A box of a picture that is mirrored outside."""
    canvas = np.pad(whole, ((size, 2 * size), (size, 2 * size), (0, 0)), mode="reflect")
    return canvas[size + corner[1] :, size + corner[0] :][:size, :size]


def places(width, height, size, seed=0):
    rng = np.random.default_rng(seed)
    corners = [(0, 0), (width - size, height - size), (width - 1, 0), (0, height - 1), (-7, -9), (-size, 5),
               (width - 1, height - 1), (width - size + 1, -3), (width - size // 2, height // 2)]  # fmt: skip
    return corners + [tuple(map(int, rng.integers(-20, (width, height)))) for _ in range(12)]


@pytest.mark.parametrize(
    ("step", "level"),
    [(0.4, 0), (0.77, 0), (0.998, 0), (1.01, 0), (1.3, 0), (1.9, 0), (2.04, 1), (2.7, 1), (3.9, 1), (4.1, 2), (9.3, 2)],
)
def test_boxes_equal_the_slide_resampled_in_one_piece(step, level):
    reader = Pixels(*pyramid(800, 640))
    view = ModelView(reader, MPP * step)
    assert view.scale == pytest.approx(step)
    assert (view.width, view.height) == (round(800 / step), round(640 / step))
    own = step / reader.levels[level].downsample
    whole = resampled_whole(reader.pixels[level], own, (view.width, view.height)).astype(int)
    size = 48
    corners = places(view.width, view.height, size)
    for corner, box in zip(corners, view.read_batch(corners, size)):
        assert box.dtype == np.uint8
        assert box.shape == (size, size, 3)
        # Pillow's weights are of 8 bits, and their phase is rounded
        assert np.abs(box - cut(whole, corner, size)).max() <= 2, corner
    assert {index for index, _ in reader.read_areas} == {level}


@pytest.mark.parametrize("step", [0.77, 1.0, 1.3, 2.0, 2.7])
def test_one_box_of_level_0_equals_the_slide_resampled_in_one_piece(step):
    reader = Pixels(*pyramid(800, 640))
    view = ModelView(reader, MPP * step)
    whole = resampled_whole(reader.pixels[view.index], step / reader.levels[view.index].downsample, (300, 200))
    for xm, ym, width, height in ((0, 0, 60, 40), (31, 77, 40, 60)):
        box = read_box(reader, xm * step, ym * step, width * step, height * step, (width, height))
        assert np.abs(box - whole[ym : ym + height, xm : xm + width].astype(int)).max() <= 2
    box = read_box(reader, 800 - 30 * step, 640 - 20 * step, 40 * step, 40 * step, (40, 40))
    corner = read_box(reader, 800 - 30 * step, 640 - 20 * step, 30 * step, 20 * step, (30, 20))
    assert np.abs(box - np.pad(corner, ((0, 20), (0, 10), (0, 0)), mode="reflect").astype(int)).max() <= 2


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("workers", [1, 3])
def test_level_of_the_models_scale_is_read_as_it_is(level, workers):
    reader = Pixels(*pyramid(801, 643), workers=workers)
    view = ModelView(reader, MPP * reader.levels[level].downsample)
    corners = places(view.width, view.height, 64)
    for corner, box in zip(corners, view.read_batch(corners, 64)):
        assert np.array_equal(box, cut(reader.pixels[level], corner, 64))
        inside = 0 <= corner[0] <= view.width - 64 and 0 <= corner[1] <= view.height - 64
        assert np.shares_memory(box, reader.pixels[level]) == inside


def test_neighbours_fit_together_at_any_distance():
    """An error of 0.1% in scale is a pixel in a thousand: it must not add up over a slide."""
    width = 6000
    # one line in ten is dark
    pixels = np.full((40, width, 3), 250, np.uint8)
    pixels[:, ::10] = 50
    view = ModelView(Pixels(pixels), MPP * 1.001)
    boxes = view.read_batch([(x, 0) for x in range(0, view.width - 32, 29)], 32)
    for left, right in itertools.pairwise(boxes):
        assert np.abs(left[:, 29:].astype(int) - right[:, :3]).max() <= 2
    whole = resampled_whole(pixels, 1.001, (view.width, view.height)).astype(int)
    assert np.abs(boxes[-1] - cut(whole, (29 * (len(boxes) - 1), 0), 32)).max() <= 2


@pytest.mark.parametrize(
    ("width", "step", "as_it_is"), [(2000, 1.0002, True), (4000, 1.0002, False), (900, 1.0005, True)]
)
def test_scale_is_called_equal_up_to_half_a_pixel_of_the_whole_slide(width, step, as_it_is):
    reader = Pixels(picture(width, 50))
    (box,) = ModelView(reader, MPP * step).read_batch([(width - 60, 3)], 30)
    assert np.array_equal(box, reader.pixels[0][3:33, width - 60 :][:, :30]) == as_it_is


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 2)])
@pytest.mark.parametrize("step", [0.3, 1.0, 1.7, 4.0])
def test_smallest_slides_have_a_pixel(size, step):
    view = ModelView(Pixels(picture(*size) // 2), MPP * step)
    assert (view.width, view.height) == tuple(max(1, round(side / step)) for side in size)
    for box in view.read_batch([(0, 0), (-3, -3)], 8):
        assert box.shape == (8, 8, 3)
    (box,) = view.read_batch([(0, 0)], 8)
    assert (box < 130).all()
    inside = box[: view.height, : view.width]
    over = (0, max(0, 8 - view.height)), (0, max(0, 8 - view.width)), (0, 0)
    assert np.array_equal(box, np.pad(inside, over, mode="reflect"))


@pytest.mark.parametrize("step", [1.0, 1.3])
def test_damage_is_the_error_of_the_boxes_that_touch_it(step):
    reader = Pixels(picture(400, 300), damaged=[(0, 200, 100)])
    boxes = ModelView(reader, MPP * step).read_batch([(0, 0), (round(190 / step), round(90 / step)), (0, 150)], 40)
    assert [isinstance(box, UnreadablePixels) for box in boxes] == [False, True, False]


@pytest.mark.parametrize("step", [1.0, 1.3, 2.4])
def test_box_that_is_damaged_in_part_holds_the_rest(step):
    pixels = picture(400, 300)
    reader = Pixels(pixels, damaged=[(0, 200, 100)], tile=32)
    whole = ModelView(Pixels(pixels), MPP * step)
    view = ModelView(reader, MPP * step)
    # tile 192 to 224, 96 to 128, and the filter's reach around it
    reach = 0 if step == 1 else math.ceil(3 * step)
    for corner in [(round(170 / step), round(80 / step)), (round(200 / step), round(100 / step)), (-20, -20)]:
        (box,), (expected,) = view.read_batch([corner], 80), whole.read_batch([corner], 80)
        xs, ys = ((np.arange(80) + start + 0.5) * step for start in corner)
        inside = ((xs > 192) & (xs < 224))[None] & ((ys > 96) & (ys < 128))[:, None]
        near = ((xs > 190 - reach) & (xs < 226 + reach))[None] & ((ys > 94 - reach) & (ys < 130 + reach))[:, None]
        if not inside.any():
            assert np.array_equal(box, expected)
            continue
        assert isinstance(box, PartlyRead)
        assert box.unread[inside].all()
        assert not box.unread[~near].any()
        assert np.abs(box.pixels[~box.unread].astype(int) - expected[~box.unread]).max() <= (0 if step == 1 else 2)


@pytest.mark.parametrize("step", [1.0, 1.3])
def test_what_cannot_be_read_is_unread_in_the_mirror_too(step):
    """Also in a slide much smaller than the box, whose mirror images repeat."""
    pixels = picture(72, 50)
    view = ModelView(Pixels(pixels, damaged=[(0, 40, 20)], tile=16), MPP * step)
    (own,) = view.read_batch([(0, 0)], min(view.width, view.height))
    (box,) = view.read_batch([(-100, -90)], 300)
    (once,) = view.read_batch([(0, 0)], 72)
    assert own.unread.any()
    unread = once.unread[: view.height, : view.width]
    expected = np.pad(unread, ((90, 210 - view.height), (100, 200 - view.width)), mode="reflect")
    assert np.array_equal(box.unread, expected)
    # and damage that no box shows is none
    view = ModelView(Pixels(picture(400, 300), damaged=[(0, 100, 20)], tile=16), MPP)
    (box,) = view.read_batch([(-60, -60)], 120)
    assert isinstance(box, np.ndarray)


def test_finer_level_stands_for_what_is_damaged_and_a_coarser_one_never_does():
    levels = pyramid(800, 640)
    reader = Pixels(*levels, damaged=[(1, 100, 90)], tile=32)
    (box,) = ModelView(reader, 2 * MPP).read_batch([(64, 64)], 64)
    assert not box.unread.any()
    assert np.abs(box.pixels.astype(int) - cut(levels[1], (64, 64), 64)).mean() < 3
    reader = Pixels(*levels, damaged=[(0, 200, 180), (1, 100, 90)], tile=32)
    (box,) = ModelView(reader, 2 * MPP).read_batch([(64, 64)], 64)
    # the tile of level 0 that is damaged too, and the filter's reach
    assert 16**2 <= box.unread.sum() <= 24**2
    assert {level for level, _ in reader.read_areas} == {0, 1}


def test_real_slide_at_half_its_scale(data):
    from lightmuseg.wsi.readers import open_slide

    path = data / "slides" / "CMU-1-Small-Region.svs"
    with Image.open(path) as image:
        whole = image.convert("RGB")
    with open_slide(path) as slide:
        view = ModelView(slide, 2 * slide.mpp)
        (box,) = view.read_batch([(500, 600)], 128)
    half = whole.resize((1110, 1483), Image.Resampling.LANCZOS, box=(0, 0, 2220, 2966))
    expected = np.asarray(half, int)[600:728, 500:628]
    # two JPEG decoders
    assert np.abs(box - expected).max() <= 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("factor", "level"), [(1, 0), (2, 1), (4, 2), (8, 2), (16, 2)])
def test_thumbnail_is_the_mean_of_what_it_covers(monkeypatch, factor, level, workers):
    monkeypatch.setattr("lightmuseg.wsi.low_power.BLOCK", 64)
    reader = Pixels(*pyramid(640, 480), workers=workers)
    made = thumbnail(reader, MPP * factor, 10_000)
    image = made.pixels
    assert (made.factor, made.level, made.elsewhere, made.unread.any()) == (factor, level, 0, False)
    assert {index for index, _ in reader.read_areas} == {level}
    own = factor >> level
    pixels = reader.pixels[level].astype(float)
    expected = pixels.reshape(480 // factor, own, 640 // factor, own, 3).mean((1, 3))
    assert image.shape == expected.shape
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("size", [(1000, 700), (997, 701), (640, 33), (1, 1), (5, 700)])
@pytest.mark.parametrize(("max_mpp", "max_side"), [(2.0, 10_000), (0.9, 100), (0.1, 10_000), (8.0, 7), (0.3, 997)])
def test_thumbnail_has_one_scale_for_both_axes(monkeypatch, size, max_mpp, max_side):
    monkeypatch.setattr("lightmuseg.wsi.low_power.BLOCK", 100)
    width, height = size
    # each pixel says where it is
    x, y = np.meshgrid(np.arange(width) / width * 200, np.arange(height) / height * 200)
    reader = Pixels(np.stack([x, y, x * 0], axis=2).astype(np.uint8))
    made = thumbnail(reader, max_mpp, max_side)
    image, factor = made.pixels, made.factor
    assert factor == max(1.0, max_mpp / MPP, max(size) / max_side)
    assert image.shape[1::-1] == tuple(math.ceil(side / factor - 1e-6) for side in size)
    assert max(image.shape) <= max(max_side, 3)
    for row, column in np.random.default_rng(0).integers(0, image.shape[:2], (20, 2)):
        middle = [min((n + 0.5) * factor, side) / side * 200 for n, side in zip((column, row), size)]
        slack = 2 + 200 * factor / np.array(size)
        assert (np.abs(image[row, column, :2] - middle) <= slack).all()


def test_thumbnail_of_a_large_level_is_read_in_parts():
    reader = Pixels(np.broadcast_to(np.uint8(100), (9_000, 9_000, 3)))
    made = thumbnail(reader, 16.0, 120)
    image = made.pixels
    assert made.factor == 75
    assert (image == 100).all()
    assert image.shape == (120, 120, 3)
    assert max(area for _, area in reader.read_areas) < 5_000_000
    assert sum(area for _, area in reader.read_areas) < 1.1 * 9_000**2


@pytest.mark.parametrize("tile", [0, 32])
def test_damage_is_unread_in_the_thumbnail_and_nothing_else_is(tile):
    reader = Pixels(picture(640, 480) // 2, damaged=[(0, 333, 222)], tile=tile)
    made = thumbnail(reader, 8 * MPP, 1000)
    side = tile or PART
    left, upper = 333 // side * side // 8, 222 // side * side // 8
    lost = np.zeros((60, 80), bool)
    lost[upper : upper + side // 8, left : left + side // 8] = True
    assert np.array_equal(made.unread, lost)
    assert np.array_equal((made.pixels == 255).all(axis=2), lost)
    assert made.reasons == ("array: 333, 222",)


def test_another_level_is_seen_in_the_thumbnail_where_one_is_damaged():
    levels = pyramid(640, 480)
    whole = thumbnail(Pixels(*levels), 8 * MPP, 1000).pixels.astype(int)
    for damaged, left in [
        ([(2, 100, 60)], {0: False, 1: True}),
        ([(2, 100, 60), (1, 200, 120)], {0: True, 1: True}),
        ([(1, 200, 120)], {0: False, 1: False}),
    ]:
        reader = Pixels(*levels, damaged=damaged, tile=32)
        made = thumbnail(reader, 8 * MPP, 1000)
        assert np.abs(made.pixels - whole).max() <= 2
        assert not made.unread.any()
        assert made.elsewhere == (16**2 if damaged[0][0] == 2 else 0)
        assert {level: level in {index for index, _ in reader.read_areas} for level in (0, 1)} == left
    # of a slide whose finest level is damaged the coarser ones are there
    reader = Pixels(*levels, damaged=[(0, 200, 120)], tile=32)
    made = thumbnail(reader, MPP, 1000)
    assert not made.unread.any()
    assert made.elsewhere == 32**2


@pytest.mark.parametrize("tile", [0, 64])
def test_what_cannot_be_decoded_is_tried_once(tile):
    """Each tile, and each box before it: not its quarters, and those of each, down to single pixels."""
    size = 1024
    every = [
        (level, x, y) for level in (0, 1) for x in range(0, size >> level, 16) for y in range(0, size >> level, 16)
    ]
    reader = Pixels(*pyramid(size, size, 2), damaged=every, tile=tile)
    made = thumbnail(reader, 4 * MPP, 1000)
    assert made.unread.all()
    tiles = sum((size // (tile or PART) >> level) ** 2 for level in (0, 1))
    assert len(reader.read_areas) <= tiles + 2
    before = len(reader.read_areas)
    boxes = ModelView(reader, MPP).read_batch([(x, y) for x in (0, 200) for y in (0, 200)], 256)
    assert all(isinstance(box, UnreadablePixels) and not isinstance(box, PartlyRead) for box in boxes)
    # of tiles that are known nothing is tried again; of others the boxes are
    assert len(reader.read_areas) - before == (0 if tile else 8)
