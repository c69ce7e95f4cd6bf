import csv
import sys

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data import load_tiles
from lightmuseg.data.bcss import CODE_NAMES
from lightmuseg.data.prepare import prepare_bcss
from lightmuseg.data.stats import as_table, class_shares, write_shares
from lightmuseg.errors import InputError


@pytest.fixture
def dataset(bcss, tmp_path):
    prepare_bcss(bcss.folder, tmp_path / "out", tile_size=128, val=["TCGA-A1-AAAA"], test=["TCGA-E5-EEEE"])
    return tmp_path / "out"


def test_pixels_and_shares_are_those_of_the_mask_files(dataset):
    rows = class_shares(dataset)
    for split in ("train", "val", "test"):
        masks = np.stack([np.array(Image.open(tile["label"])) for tile in load_tiles(dataset, split)])
        counts = np.bincount(masks.ravel(), minlength=22)
        of_split = {row["code"]: row for row in rows if row["split"] == split}
        assert [of_split[code]["pixels"] if code in of_split else 0 for code in range(22)] == counts.tolist()
        for code, row in of_split.items():
            assert row["share"] == pytest.approx((masks == code).mean())
            assert row["name"] == CODE_NAMES[code]
            assert row["tiles"] == len(masks)
    assert {row["split"]: row["patients"] for row in rows} == {"train": 3, "val": 1, "test": 1}


def test_split_without_tiles_has_no_rows(bcss, tmp_path):
    prepare_bcss(bcss.folder, tmp_path / "out", tile_size=128, test=["TCGA-E5-EEEE"])
    assert [row["split"] for row in class_shares(tmp_path / "out")] == ["train"] * 22 + ["test"] * 22


def test_dataset_without_tile_files_has_the_same_shares(bcss, dataset, tmp_path):
    options = {"tile_size": 128, "val": ["TCGA-A1-AAAA"], "test": ["TCGA-E5-EEEE"], "tile_files": "none"}
    prepare_bcss(bcss.folder, tmp_path / "places", **options)
    assert class_shares(tmp_path / "places") == class_shares(dataset)


def test_table_has_a_line_for_each_code_and_the_numbers_of_each_split():
    row = {"split": "train", "tiles": 1200, "patients": 3, "code": 1, "name": "tumor", "pixels": 1234567, "share": 0.75}
    rows = [
        row,
        {**row, "code": 13, "name": "normal_acinus_or_duct", "pixels": 411522, "share": 0.25},
        {**row, "split": "test", "tiles": 7, "patients": 1, "pixels": 0, "share": 0.0},
        {**row, "split": "test", "tiles": 7, "patients": 1, "code": 13, "pixels": 10, "share": 1.0},
    ]
    assert [line.split() for line in as_table(rows).splitlines()] == [
        ["train", "test"],
        ["tiles", "1,200", "7"],
        ["patients", "3", "1"],
        ["1", "tumor", "1,234,567", "75.00%", "0", "0.00%"],
        ["13", "normal_acinus_or_duct", "411,522", "25.00%", "10", "100.00%"],
    ]


def test_csv_holds_the_rows_and_the_picture_is_one(dataset, tmp_path):
    pytest.importorskip("matplotlib")
    rows = class_shares(dataset)
    write_shares(rows, tmp_path / "shares ü")
    with open(tmp_path / "shares ü" / "class_shares.csv", newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert written == [{name: str(value) for name, value in row.items()} for row in rows]
    picture = np.array(Image.open(tmp_path / "shares ü" / "class_shares.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 22
    assert len(list((tmp_path / "shares ü").iterdir())) == 2


def test_bars_are_as_long_as_the_shares(dataset):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from lightmuseg.data.stats import draw

    rows = class_shares(dataset)
    draw(rows, figure)
    bars = [bar for container in figure.axes[0].containers for bar in container]
    assert sorted(bar.get_width() for bar in bars) == pytest.approx(sorted(100 * row["share"] for row in rows))
    assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(100)
    colours = {tuple(container[0].get_facecolor()) for container in figure.axes[0].containers}
    assert len(colours) == len({row["code"] for row in rows})


def test_missing_matplotlib_is_named_with_its_remedy(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"pip install 'lightmuseg\[plots\]'"):
        write_shares(class_shares(dataset), tmp_path / "out")
    assert not (tmp_path / "out" / "class_shares.csv").exists()


def test_folder_without_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no prepared tiles here"):
        class_shares(tmp_path)
