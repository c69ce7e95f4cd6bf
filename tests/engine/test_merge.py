import tracemalloc

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import SlidingWindowInferer

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.merge import Merger, blending_window
from lightmuseg.engine.plan import plan_tiles

SIZES = [((300, 221), 0.25), ((130, 64), 0.5), ((200, 131), 0.0), ((90, 170), 0.3), ((64, 64), 0.25)]
TILE = 64
# a quarter of a tile
MARGIN = 16


def merged(plan, stride, channels, logits_of):
    """The map [C, H, W] that a merger makes of a plan's tiles, and where nothing came; in output pixels."""
    shape = plan.height * plan.factor // stride, plan.width * plan.factor // stride
    values, missing = np.full((channels, *shape), np.nan, np.float32), np.ones(shape, bool)
    order = []

    def finish(row, column, logits, absent):
        y, x = (edges[index] * plan.factor // stride for edges, index in ((plan.edges_y, row), (plan.edges_x, column)))
        values[:, y : y + logits.shape[1], x : x + logits.shape[2]] = logits
        missing[y : y + logits.shape[1], x : x + logits.shape[2]] = absent
        order.append((row, column))

    merger = Merger(plan, stride, channels, finish)
    for tile in plan.tiles:
        merger.add(tile, logits_of(plan.corner_m(tile)))
    merger.close()
    assert order == sorted(set(order))
    return values, missing


@pytest.mark.parametrize(("size", "overlap"), SIZES)
@pytest.mark.parametrize("stride", [1, 2])
def test_map_is_that_of_monais_inferer(size, overlap, stride):
    torch.manual_seed(0)
    width, height = (side + side % 2 for side in size)
    image = torch.rand(1, 3, height, width)
    network = torch.nn.Conv2d(3, 4, 7, padding=3, stride=stride)
    framed, frame = torch.nn.functional.pad(image, [MARGIN] * 4, mode="reflect"), MARGIN // stride
    with torch.no_grad():
        expected = SlidingWindowInferer((TILE, TILE), 1, overlap, mode="gaussian")(framed, network)[0].numpy()
    expected = expected[:, frame:-frame, frame:-frame]

    def logits_of(corner):
        x, y = (at + MARGIN for at in corner)
        with torch.no_grad():
            return network(framed[:, :, y : y + TILE, x : x + TILE])[0].numpy()

    plan = plan_tiles((width, height), 1.0, WholeSlide(width, height), TILE, overlap, 2)
    values, missing = merged(plan, stride, 4, logits_of)
    assert not missing.any()
    # the step between tiles is even here, in MONAI any whole number
    if int(TILE * (1 - overlap)) % 2 == 0:
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "overlap"), SIZES)
def test_constant_field_stays_constant(size, overlap):
    plan = plan_tiles(size, 1.0, WholeSlide(*size), TILE, overlap, 2)
    values, missing = merged(plan, 2, 1, lambda corner: np.full((1, TILE // 2, TILE // 2), 0.7, np.float32))
    assert not missing.any()
    assert np.abs(values - np.float32(0.7)).max() < 1e-6


def test_pixels_of_no_tile_that_came_are_missing():
    size = 300, 200
    plan = plan_tiles(size, 1.0, WholeSlide(*size), TILE, 0.25, 2)
    lost = plan.corner_m((1, 2))
    ones = np.ones((1, TILE // 2, TILE // 2), np.float32)
    values, missing = merged(plan, 2, 1, lambda corner: None if corner == lost else ones)
    came = np.zeros_like(missing)
    for x, y in map(plan.corner_m, plan.tiles):
        if (x, y) != lost:
            came[max(0, y // 2) : (y + TILE) // 2, max(0, x // 2) : (x + TILE) // 2] = True
    assert 0 < missing.sum() < (TILE // 2) ** 2
    assert np.array_equal(missing, ~came)
    assert (values[0][came] == 1).all()


def test_window_has_its_peak_in_the_middle_and_no_zero():
    window = blending_window(512, 1)
    assert window.argmax() in {255 * 512 + 255, 255 * 512 + 256, 256 * 512 + 255, 256 * 512 + 256}
    assert window.min() >= 1e-3
    assert np.allclose(window, window.T)


@pytest.mark.parametrize(("tile_size", "stride"), [(512, 1), (512, 2), (224, 4), (64, 2)])
def test_window_is_that_of_monais_inferer(tile_size, stride):
    expected = compute_importance_map((tile_size, tile_size), mode="gaussian", sigma_scale=0.125)
    expected = expected.clamp(min=1e-3)[stride // 2 :: stride, stride // 2 :: stride].numpy()
    np.testing.assert_allclose(blending_window(tile_size, stride), expected, rtol=1e-5)


def test_only_the_strips_below_are_kept():
    # with its margin whole steps, so that no two tiles share more than the overlap
    size = 64 * 40 - 2 * MARGIN, 304 - 2 * MARGIN
    plan = plan_tiles(size, 1.0, WholeSlide(*size), TILE, 0.25, 2)
    merger = Merger(plan, 2, 1, lambda *cell: None)
    kept = []
    tracemalloc.start()
    for tile in plan.tiles:
        merger.add(tile, np.ones((1, 32, 32), np.float32))
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # of each tile an overlap of 8 of its 32 rows, the corners twice, and what Python needs for slices and arrays
    assert max(kept) <= len(plan.xs_m) * (4 * 8 * 32 + 1500) + 4 * 2 * 32 * 32


def test_a_tile_looks_only_at_the_cells_that_it_finishes():
    width = 64 * 40
    plan = plan_tiles((width, 304), 1.0, WholeSlide(width, 304), TILE, 0.25, 2)
    looked, finished = [], []

    class Tile(tuple):
        def __gt__(self, cell):
            # Python asks the subclass first, whichever side it stands on
            looked.append(cell)
            return tuple(self) > cell

    merger = Merger(plan, 2, 1, lambda row, column, logits, missing: finished.append((row, column)))
    for tile in plan.tiles:
        merger.add(Tile(tile), None)
    merger.close()
    assert len(finished) == len(plan.tiles)
    # each when it is finished, and one for each tile that is not yet
    assert len(looked) <= len(finished) + len(plan.tiles)
