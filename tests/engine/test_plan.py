import re

import numpy as np
import pytest
import shapely
from monai.data.utils import dense_patch_slices

from lightmuseg.areas.area import RegionOfInterest, TissueMask, WholeSlide
from lightmuseg.engine.plan import plan_tiles, tile_starts
from lightmuseg.errors import InputError


@pytest.mark.parametrize("size", [512, 514, 895, 896, 897, 1500, 4000, 40_001])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_starts_are_monais_on_even_pixels_with_a_margin_around(size, overlap):
    framed = size + size % 2 + 2 * 32
    expected = [one.start - 32 for (one,) in dense_patch_slices((framed,), (512,), (int(512 * (1 - overlap)),))]
    assert list(tile_starts(size, 512, overlap, 2)) == expected


@pytest.mark.parametrize("factor", [1, 2, 8, 64])
@pytest.mark.parametrize("size", [1, 64, 500, 512, 513, 3001])
@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5])
@pytest.mark.parametrize("tile", [64, 128, 512])
def test_every_pixel_and_a_margin_are_covered_from_the_grid(size, factor, overlap, tile):
    starts = tile_starts(size, tile, overlap, factor)
    covered = {at for start in starts for at in range(start, start + tile)}
    assert all(start % factor == 0 for start in starts)
    assert covered >= set(range(size))
    assert len(set(starts)) == len(starts)
    # no cell of the map lies outside of it
    assert starts[0] <= 0
    assert all(0 < start < size for start in starts[1:])
    margin = min(32, tile // 4) if tile // 4 >= factor else 0
    if len(starts) > 1:
        assert starts[0] <= -margin
        assert size + margin <= starts[-1] + tile < size + margin + 2 * factor
    else:
        # half of the margin is enough where a tile has no more
        assert min(-starts[0], starts[0] + tile - size) > margin // 2 - factor


@pytest.mark.parametrize(("size", "tiles"), [(300, 1), (480, 1), (482, 2), (512, 2), (896, 2), (898, 3), (2418, 6)])
def test_margin_costs_few_tiles(size, tiles):
    assert len(tile_starts(size, 512, 0.125, 2)) == tiles
    without = 1 if size <= 512 else 1 + -(-(size - 512) // 448)
    assert tiles <= without + 1


def test_small_slide_is_one_tile():
    plan = plan_tiles((100, 30), 1.0, WholeSlide(100, 30), 512, 0.25, 2)
    assert plan.tiles == ((0, 0),)
    assert (plan.width, plan.height) == (50, 15)


def test_every_tissue_pixel_lies_in_all_tiles_that_reach_it():
    rng = np.random.default_rng(0)
    scale, step0 = 1.3, 16.0
    grid = np.zeros((120, 150), bool)
    for _ in range(6):
        y, x = rng.integers(0, 110), rng.integers(0, 140)
        grid[y : y + 7, x : x + 5] = True
    grid[-1, -1] = True
    area = TissueMask(grid, step0)
    size_m = round(150 * step0 / scale), round(120 * step0 / scale)
    plan = plan_tiles(size_m, scale, area, 256, 0.25, 2)
    whole = plan_tiles(size_m, scale, WholeSlide(150 * step0, 120 * step0), 256, 0.25, 2)
    assert 0 < len(plan.tiles) < len(whole.tiles) == len(plan.xs_m) * len(plan.ys_m)
    for y, x in np.argwhere(grid):
        xm, ym = (x + 0.5) * step0 / scale, (y + 0.5) * step0 / scale
        around = {t for t in whole.tiles if all(0 <= at - low < 256 for at, low in zip((xm, ym), whole.corner_m(t)))}
        assert around
        assert around <= set(plan.tiles)


@pytest.mark.parametrize("overlap", [-0.1, 0.6, 1.0])
def test_overlap_that_cannot_be_is_refused(overlap):
    with pytest.raises(InputError, match=re.escape(f"--overlap {overlap}")):
        plan_tiles((1000, 1000), 1.0, WholeSlide(1000, 1000), 512, overlap, 2)


def test_tile_size_off_the_grid_is_refused():
    with pytest.raises(InputError, match="--tile_size 96"):
        plan_tiles((1000, 1000), 1.0, WholeSlide(1000, 1000), 96, 0.25, 64)


@pytest.mark.parametrize("box", [(0, 0, 10, 10), (900, 700, 1400, 1200), (2500, 1900, 3001, 2001), (100, 0, 200, 2001)])
def test_part_of_a_plan_has_the_same_tiles_and_covers_the_area(box):
    plan = plan_tiles((3001, 2001), 1.0, RegionOfInterest(shapely.box(*box)), 512, 0.25, 2)
    part, (xm, ym) = plan.part()
    places = [(x + xm, y + ym) for x, y in map(part.corner_m, part.tiles)]
    assert places == [plan.corner_m(tile) for tile in plan.tiles]
    assert part.xs_m[0] == (-32 if xm == 0 else 0)
    assert part.ys_m[0] == (-32 if ym == 0 else 0)
    left, upper = xm // 2, ym // 2
    assert left <= box[0] // 2
    assert upper <= box[1] // 2
    assert -(-box[2] // 2) <= left + part.width <= plan.width
    assert -(-box[3] // 2) <= upper + part.height <= plan.height
