"""measurements.csv against sums over whole arrays."""

import csv
import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
from segmented_slides import segmented

from lightmuseg.engine.counts import Counts
from lightmuseg.engine.entropy import Entropies
from lightmuseg.outputs.measurements import write

NAMES = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")


@pytest.fixture
def slide():
    """Class indices, where they were analysed and where of that was tissue; unread pixels inside and outside."""
    random = np.random.default_rng(0)
    analysed = random.random((403, 307)) < 0.6
    classes = random.choice(5, (403, 307), p=[0.1, 0.3, 0.4, 0.15, 0.05]).astype(np.uint8)
    tissue = analysed & (random.random((403, 307)) < 0.8)
    classes[~tissue] = 0
    classes[200:220] = 255
    return classes, analysed, tissue


def write_measurements(path, counts, names, mpp):
    class_map = SimpleNamespace(class_names=names, mpp=mpp)
    write(path, segmented(class_map, counts=counts, entropies=Entropies.of(names)))


def table_of(path):
    """The rows by their measures, but for the uncertainties, which the tests of entropy look at."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = {row.pop("measure"): row for row in csv.DictReader(file)}
    return {name: row for name, row in rows.items() if not name.endswith("_uncertainty")}


def counted(classes, analysed, tissue, names=NAMES):
    counts = Counts.of(names)
    counts.add(classes, analysed, tissue)
    return counts


def test_areas_shares_and_ratios_are_sums_over_the_map(tmp_path, slide):
    classes, analysed, tissue = slide
    write_measurements(tmp_path / "m.csv", counted(*slide), NAMES, 0.5)
    table = table_of(tmp_path / "m.csv")
    read = tissue & (classes != 255)
    pixels = {name: (classes[read] == index).sum() for index, name in enumerate(["other_tissue", *NAMES])}
    expected = {
        **{f"{name}_area": n * 0.25e-6 for name, n in pixels.items()},
        "tissue_area": read.sum() * 0.25e-6,
        "analysed_area": (analysed & (classes != 255)).sum() * 0.25e-6,
        "unread_area": (classes == 255).sum() * 0.25e-6,
        **{f"{name}_share": n / read.sum() for name, n in pixels.items()},
        "tumor_stroma_ratio": pixels["stroma"] / (pixels["tumor"] + pixels["stroma"]),
        "lymphocyte_share_of_stroma": pixels["lymphocytic_infiltrate"]
        / (pixels["stroma"] + pixels["lymphocytic_infiltrate"]),
    }
    assert {name: float(row["value"]) for name, row in table.items()} == pytest.approx(expected, abs=6e-7)
    units = {row["unit"] for name, row in table.items() if name.endswith("_area")}
    assert units == {"mm2"}
    assert {row["unit"] for name, row in table.items() if not name.endswith("_area")} == {"fraction"}


def test_definitions_hold_for_the_areas_of_the_same_table(tmp_path, slide):
    """What the column says is what was computed."""
    write_measurements(tmp_path / "m.csv", counted(*slide), NAMES, 20.0)
    table = table_of(tmp_path / "m.csv")
    areas = {name.removesuffix("_area"): float(row["value"]) for name, row in table.items() if row["unit"] == "mm2"}
    parts = {name: row for name, row in table.items() if row["unit"] == "fraction"}
    assert len(parts) == 7
    for row in parts.values():
        assert eval(row["definition"], {}, areas) == pytest.approx(float(row["value"]), abs=1e-6)


def test_blocks_rows_and_a_resumed_run_add_up_to_the_whole(slide):
    total = Counts.of(NAMES)
    for top in range(0, 403, 100):
        row = Counts.of(NAMES)
        for left in range(0, 307, 64):
            box = slice(top, top + 100), slice(left, left + 64)
            row.add(*(array[box] for array in slide))
        total.merge(Counts(**json.loads(json.dumps(dataclasses.asdict(row)))))
    assert total == counted(*slide)


@pytest.mark.parametrize(
    ("names", "ratios"),
    [
        (["tumor"], []),
        (["stroma", "fat"], []),
        (["stroma", "tumor"], ["tumor_stroma_ratio"]),
        (["lymphocytic_infiltrate", "stroma"], ["lymphocyte_share_of_stroma"]),
    ],
)
def test_a_model_has_the_ratios_of_its_classes(tmp_path, names, ratios):
    write_measurements(tmp_path / "m.csv", Counts([5, 3, 1][: len(names) + 1]), names, 1.0)
    table = table_of(tmp_path / "m.csv")
    areas = [*names, "other_tissue", "tissue", "analysed", "unread"]
    shares = [*names, "other_tissue"]
    assert list(table) == [f"{name}_area" for name in areas] + [f"{name}_share" for name in shares] + ratios
    assert [table[name]["value"] for name in ratios] == ["0.750000"] * len(ratios)


def test_what_would_be_divided_by_nothing_is_empty(tmp_path):
    write_measurements(tmp_path / "m.csv", Counts.of(NAMES), NAMES, 0.5)
    table = table_of(tmp_path / "m.csv")
    assert {row["value"] for name, row in table.items() if name.endswith("_area")} == {"0.000000"}
    assert {row["value"] for name, row in table.items() if not name.endswith("_area")} == {""}


def test_no_tumor_at_all_is_all_stroma(tmp_path):
    write_measurements(tmp_path / "m.csv", Counts([0, 0, 7, 0, 0]), NAMES, 0.5)
    assert table_of(tmp_path / "m.csv")["tumor_stroma_ratio"]["value"] == "1.000000"
