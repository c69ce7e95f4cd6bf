import re

import numpy as np
import pytest
from monai.data.utils import dense_patch_slices

from lightmuseg.errors import InputError
from lightmuseg.slides.area import TissueMask, WholeSlide
from lightmuseg.slides.plan import plan_tiles, tile_starts


@pytest.mark.parametrize("size", [512, 514, 895, 896, 897, 1500, 4000, 40_001])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_starts_are_monais_on_even_pixels(size, overlap):
    even = size + size % 2
    expected = [one.start for (one,) in dense_patch_slices((even,), (512,), (int(512 * (1 - overlap)),))]
    assert list(tile_starts(size, 512, overlap, 2)) == expected


@pytest.mark.parametrize("factor", [1, 2, 8, 64])
@pytest.mark.parametrize("size", [1, 64, 500, 512, 513, 3001])
def test_every_pixel_is_covered_from_the_grid(size, factor):
    starts = tile_starts(size, 512, 0.3, factor)
    covered = np.zeros(max(size, starts[-1] + 512), bool)
    for start in starts:
        assert start % factor == 0
        covered[start : start + 512] = True
    assert covered[:size].all()
    assert len(set(starts)) == len(starts)
    assert starts[-1] + 512 < max(size, 512) + factor


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
