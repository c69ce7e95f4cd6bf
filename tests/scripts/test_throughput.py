"""The model of throughput against closed forms, and its tiles against the planner's."""

import math
import sys

import pytest

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.plan import plan_tiles

STAGES = ("planning", "reading", "network", "merging", "writing")


@pytest.fixture(scope="module")
def model(root):
    """The module."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    import throughput

    yield throughput
    sys.path.remove(str(root / "scripts" / "benchmark"))


@pytest.fixture(scope="module")
def costs(model):
    """Of a tile: reading 10 ms, network 100 ms, merging 2 ms, writing 5 ms, 1 MB read; of a slide 1 s of planning."""
    per_tile = dict(zip(STAGES, (0, 0.01, 0.1, 0.002, 0.005)))
    cpu = {stage: model.Cost(float(stage == "planning"), 0, seconds) for stage, seconds in per_tile.items()}
    return model.Costs(cpu, {"reading": model.Cost(per_tile=1e6)}, {"writing": model.Cost()})


@pytest.fixture(scope="module")
def slide(model):
    return model.Slide(1.0, 1000, 0.3)


def machine(model, **changed):
    return model.Machine(**{"cores": 1000, "workers": 1000, "threads": 1, "gpus": 1, "gpu_tiles": 500, **changed})


def test_a_gpu_allows_its_tiles_over_those_of_a_slide(model, costs, slide):
    assert model.bottleneck(costs, machine(model), slide) == ("GPUs", pytest.approx(500 / 1000))


def test_twice_the_gpus_are_twice_the_slides_until_the_storage_allows_no_more(model, costs, slide):
    found = [model.bottleneck(costs, machine(model, gpus=n, storage=2e9), slide) for n in (1, 2, 4, 8)]
    assert [rate for _, rate in found] == pytest.approx([0.5, 1, 2, 2])
    assert [name for name, _ in found] == ["GPUs", "GPUs", "GPUs", "storage"]


def test_cores_do_all_stages_where_there_is_no_gpu(model, costs, slide):
    without, beside = (machine(model, cores=10, workers=10, gpus=gpus) for gpus in (0, 1))
    assert model.slides_a_second(costs, without, slide)["cores"] == pytest.approx(10 / (1 + 10 + 100 + 2 + 5))
    assert model.slides_a_second(costs, beside, slide)["cores"] == pytest.approx(10 / (1 + 10 + 2 + 5))


@pytest.mark.parametrize(("changed", "seconds"), [
    # planning, then the slowest of reading (10 s), network on the GPU (2 s) and merging (2 s), then writing
    ({"cores": 8000}, 1 + 10 + 5),
    # eight threads read, and merging is as slow as the GPU
    ({"cores": 8000, "threads": 8}, 1 + 2 + 5),
    ({"cores": 8000, "threads": 8, "gpu_tiles": 100}, 1 + 10 + 5),
    # four cores do reading and merging together
    ({"cores": 4000, "threads": 8}, 1 + (10 + 2) / 4 + 5),
    # half a core takes twice as long
    ({"cores": 500}, (1 + 10 + 2 + 5) / 0.5),
    # the network on the worker's two cores
    ({"gpus": 0, "cores": 2000, "threads": 2}, 1 + (10 + 100 + 2) / 2 + 5),
])  # fmt: skip
def test_a_worker_overlaps_what_the_engine_overlaps(model, costs, slide, changed, seconds):
    assert model.seconds_of_a_slide(costs, machine(model, **changed), slide) == pytest.approx(seconds)


def test_workers_do_one_slide_after_the_other(model, costs, slide):
    rates = model.slides_a_second(costs, machine(model, workers=4, cores=8, threads=2), slide)
    assert rates["workers"] == pytest.approx(4 / (1 + 6 + 5))


def test_what_a_day_needs_is_what_makes_it(model, costs, slide):
    needed = model.needed(costs, slide, 86_400, 500)
    assert needed == pytest.approx({"tiles": 1000, "GPUs": 2, "cores": 18, "workers": 1 + 12 + 5, "storage": 1e9})
    whole = machine(model, cores=needed["cores"], workers=18, gpus=2, storage=needed["storage"])
    assert all(rate == pytest.approx(1) for rate in model.slides_a_second(costs, whole, slide).values())


@pytest.mark.parametrize(("stage", "true"), [
    ("maps", {"fixed": 0.5, "per_gigapixel": 3.0, "per_tile": 0.004}),
    ("reading", {"per_tile": 0.002}),
    ("pictures", {"fixed": 0.5, "per_tissue": 1.5}),
])  # fmt: skip
def test_the_fit_finds_the_costs_that_made_the_figures(model, stage, true):
    sizes = (4096, 19, 0.1), (4096, 121, 0.5), (8192, 170, 0.1), (8192, 394, 0.5)
    slides = [model.Slide(side**2 / 1e9, tiles, tissue) for side, tiles, tissue in sizes]
    fitted = model.fit(stage, slides, [model.Cost(**true).of(slide) for slide in slides])
    assert vars(fitted) == pytest.approx({**vars(model.Cost()), **true}, rel=1e-6)


def test_the_fit_gives_nothing_negative(model):
    slides = [model.Slide(*one, 0.3) for one in ((0.01, 20), (0.04, 100), (0.1, 150))]
    assert min(vars(model.fit("maps", slides, [1.0, 1.2, 0.2])).values()) >= 0


def test_a_stage_that_moves_no_bytes_costs_none(model):
    slides = [model.Slide(0.01, 20, 0.3), model.Slide(0.04, 100, 0.3)]
    assert model.fit("merging", slides, [0.0, 0.0]) == model.Cost()


class Discs(WholeSlide):
    """Nine discs in a square."""

    def __init__(self, side, radius):
        self.side, self.radius = side, radius

    def covers(self, x0, y0, width, height):
        for row in range(3):
            for column in range(3):
                x, y = ((n + 0.5) * self.side / 3 for n in (column, row))
                nearest = math.hypot(x - min(max(x, x0), x0 + width), y - min(max(y, y0), y0 + height))
                if nearest < self.radius:
                    return True
        return False


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize(("side", "tissue"), [(16_384, 0.3), (24_000, 0.1)])
def test_tiles_of_round_tissue_are_those_that_are_planned(model, side, tissue, overlap):
    discs = Discs(side, side * math.sqrt(tissue / 9 / math.pi))
    planned = len(plan_tiles((side, side), 1.0, discs, 512, overlap, 2).tiles)
    assert model.slide_of(side, tissue, overlap).tiles == pytest.approx(planned, rel=0.05)


# slides of scripts/make_pyramid.py through the real tissue mask
@pytest.mark.parametrize(("side", "tiles"), [(10_000, 429), (40_000, 4_113), (80_000, 14_665)])
def test_tiles_of_real_masks_are_met(model, side, tiles):
    assert model.slide_of(side, 0.3, 0.25, margin=32 / 0.25).tiles == pytest.approx(tiles, rel=0.03)


def test_a_slide_has_no_more_tiles_than_cover_it(model):
    assert model.slide_of(512, 1.0, 0.0).tiles == 1
    assert model.slide_of(5120, 1.0, 0.0).tiles == 100
