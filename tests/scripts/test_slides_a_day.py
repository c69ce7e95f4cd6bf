"""The calculator of slides a day against closed forms, the planner's tiles, and what docs/scaling.md says."""

import json
import math
import re
import sys

import pytest

from lightmuseg.areas.area import WholeSlide
from lightmuseg.engine.plan import plan_tiles


@pytest.fixture(scope="module")
def calculator(root):
    """The module."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    import slides_a_day

    yield slides_a_day
    sys.path.remove(str(root / "scripts" / "benchmark"))


@pytest.fixture(scope="module")
def sessions(root):
    return json.loads((root / "docs" / "benchmarks" / "growth.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("changed", "limit", "slides"), [
    # 500 tiles a second, of 1000 a slide
    ({}, "GPUs", 86_400 * 500 / 1000),
    ({"gpus": 3}, "GPUs", 86_400 * 1500 / 1000),
    # 10 CPU-seconds a slide
    ({"gpus": 100, "cores": 5}, "cores", 86_400 * 5 / 10),
    # 2 s of network, 3 s whatever the slide, 4 s for its gigapixel
    ({"gpus": 100, "workers": 2}, "workers", 86_400 * 2 / 9),
    # a GPU faster than a worker reads: 1 s for 1000 tiles
    ({"tiles_a_second": 1e6, "workers": 2}, "workers", 86_400 * 2 / 8),
])  # fmt: skip
def test_the_least_of_what_gpus_cores_and_workers_allow(calculator, changed, limit, slides):
    costs = calculator.Costs(cpu_s=0.01, tiles_a_second=1000, fixed_s=3, gigapixel_s=4)
    given = {"side": math.sqrt(1e9), "tiles": 1000, "tiles_a_second": 500, "gpus": 1, "cores": 100, "workers": 1000}
    allowed = calculator.slides_a_day(costs, **{**given, **changed})
    assert min(allowed, key=allowed.get) == limit
    assert allowed[limit] == pytest.approx(slides)


def test_costs_are_those_that_made_the_figures(calculator):
    def row(side, tiles):
        segmenting, around = tiles / 300, 2 + 5 * side**2 / 1e9
        seconds = segmenting + around
        share = 0.008 * tiles / seconds / 2
        return {"part": "size", "side": side, "tiles": tiles, "seconds": seconds, "CPU share": share,
                "stages s": {"segmenting": segmenting}}  # fmt: skip

    rows = [row(32_000, 2800), row(64_000, 9500), row(128_000, 36_000), {"part": "tissue"}]
    costs = calculator.costs_of({"processors": 2, "rows": rows})
    assert vars(costs) == pytest.approx({"cpu_s": 0.008, "tiles_a_second": 300, "fixed_s": 2, "gigapixel_s": 5})


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
def test_tiles_of_round_tissue_are_those_that_are_planned(calculator, side, tissue, overlap):
    discs = Discs(side, side * math.sqrt(tissue / 9 / math.pi))
    planned = len(plan_tiles((side, side), 1.0, discs, 512, overlap, 2).tiles)
    assert calculator.tiles_of(side, tissue, overlap, margin=0) == pytest.approx(planned, rel=0.05)


def test_tiles_of_real_masks_are_met(calculator, sessions):
    rows = [row for session in sessions for row in session["rows"] if row["part"] == "size"]
    measured = {row["side"]: row["tiles"] for row in rows} | {10_000: 429, 40_000: 4_113, 80_000: 14_665}
    assert len(measured) == 7
    for side, tiles in measured.items():
        assert calculator.tiles_of(side, 0.3, 0.25) == pytest.approx(tiles, rel=0.03)


def test_a_slide_has_no_more_tiles_than_cover_it(calculator):
    assert calculator.tiles_of(512, 1.0, 0.0) == 1
    assert calculator.tiles_of(5120, 1.0, 0.0) == 100


@pytest.fixture(scope="module")
def page(root):
    return (root / "docs" / "scaling.md").read_text(encoding="utf-8")


def test_the_page_shows_what_its_commands_print(calculator, page, capsys, root, run):
    blocks = re.findall(r"```bash\n(.*?)```\n\n(\|.*?)\n\n", page, re.DOTALL)
    assert blocks
    for commands, table in blocks:
        code, out, _ = run(*commands.split(), cwd=root)
        assert code == 0
        assert out.strip() == table


def test_every_row_of_the_page_is_the_calculator_s(calculator, sessions, page):
    costs = calculator.costs_of(sessions[0])
    tiles = calculator.tiles_of(80_000, 0.3, 0.125)
    rows = re.findall(r"^\| ([\d,]+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (\w+) \|$", page, re.M)
    assert len(rows) == 9
    for rate, workers, *shown, slides, limit in rows:
        allowed = calculator.slides_a_day(costs, 80_000, tiles, int(rate.replace(",", "")), 1, 16, int(workers))
        assert shown == [f"{allowed[name]:,.0f}" for name in ("GPUs", "cores", "workers")]
        assert (slides, limit) == (f"{min(allowed.values()):,.0f}", min(allowed, key=allowed.get))


def test_the_page_names_the_error_of_what_was_checked(calculator, sessions, page):
    costs = calculator.costs_of(sessions[0])
    rows = re.findall(r"^\| (\d) \| (\d) \| ([\d.]+) \| ([\d.]+) \| ([+-]\d+)% \|$", page, re.M)
    assert len(rows) == 3
    for workers, cores, measured, predicted, error in rows:
        allowed = calculator.slides_a_day(costs, 16_384, 896, math.inf, 1, int(cores), int(workers))
        an_hour = min(allowed.values()) / 24
        assert predicted == f"{an_hour:.0f}"
        assert int(error) == round(100 * (an_hour / float(measured) - 1))
