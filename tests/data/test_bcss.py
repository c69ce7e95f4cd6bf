import csv
import logging
import re

import numpy as np
import pytest
from PIL import Image

from lightmuseg.data.bcss import CODE_NAMES, find_regions, read_mask, to_codes, warn_of_scale
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_codes


def refused(path, *words):
    return pytest.raises(InputError, match=".*".join(map(re.escape, (str(path), *words))))


def test_code_names_are_the_datasets_own(data):
    with open(data / "bcss" / "meta" / "gtruth_codes.tsv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert dict(enumerate(CODE_NAMES)) == {int(row["GT_code"]): row["label"] for row in rows}


def test_official_masks_hold_known_codes(data):
    paths = sorted((data / "bcss" / "masks_without_rgb").glob("*.png"))
    assert len(paths) == 12
    for path in paths:
        values = read_codes(path)
        assert np.array_equal(to_codes(values, "bcss", path), values)


def test_regions_say_what_the_names_say(bcss):
    regions = {region.name: region for region in find_regions(bcss.folder)}
    assert list(regions) == sorted(bcss.images)
    region = regions["TCGA-D4-DDDD-DX1_xmin123456_ymin98765_MPP-0.2520"]
    assert (region.patient, region.x0, region.y0, region.mpp) == ("TCGA-D4-DDDD", 123456, 98765, 0.3)
    assert region.image == bcss.folder / "rgbs" / f"{region.name}.png"
    assert region.mask == bcss.folder / "masks" / f"{region.name}.png"
    assert sum(region.patient == "TCGA-A1-AAAA" for region in regions.values()) == 2


def test_given_scale_goes_before_the_names(bcss):
    for images in (True, False):
        assert {region.mpp for region in find_regions(bcss.folder, images=images, mpp=0.25)} == {0.25}


def test_other_scale_than_the_names_is_said_once(bcss, caplog):
    warn_of_scale.cache_clear()
    with caplog.at_level(logging.WARNING):
        find_regions(bcss.folder)
        find_regions(bcss.folder)
    said = [record.message for record in caplog.records]
    assert [message for message in said if "0.25" in message] == [
        "BCSS regions named 0.25 um/px are of 0.3 um/px and taken so; where yours are not, prepare them with "
        "--mpp 0.25."
    ]


def test_real_folder_is_understood(data):
    regions = find_regions(data / "bcss", "tumor_masks")
    found = {(region.patient, region.x0, region.y0, region.mpp) for region in regions}
    assert found == {("TCGA-A2-A0D2", 96887, 22299, 0.3), ("TCGA-A2-A1G6", 57706, 69514, 0.3)}


def test_without_images_the_masks_are_the_regions(bcss):
    for path in (bcss.folder / "rgbs").iterdir():
        path.unlink()
    (bcss.folder / "rgbs").rmdir()
    regions = find_regions(bcss.folder, images=False)
    assert [region.name for region in regions] == sorted(bcss.masks)
    assert all(region.image is None for region in regions)
    region = regions[-2]
    assert (region.patient, region.x0, region.y0, region.mpp) == ("TCGA-D4-DDDD", 123456, 98765, 0.3)


def test_without_images_an_empty_mask_folder_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    with refused(tmp_path / "masks", "no masks"):
        find_regions(tmp_path, images=False)


def test_mask_file_is_read_in_its_coding(tmp_path):
    values = np.array([[0, 1, 2], [3, 4, 4]], dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert np.array_equal(read_mask(tmp_path / "mask.png"), values)
    names = [[CODE_NAMES[code] for code in row] for row in read_mask(tmp_path / "mask.png", "bcss-wsss")]
    assert names == [
        ["tumor", "stroma", "lymphocytic_infiltrate"],
        ["necrosis_or_debris", "outside_roi", "outside_roi"],
    ]


def test_masks_are_taken_from_the_folder_named(bcss):
    (bcss.folder / "masks").rename(bcss.folder / "my masks")
    assert {region.mask.parent.name for region in find_regions(bcss.folder, "my masks")} == {"my masks"}
    with refused(bcss.folder / "masks", "--masks"):
        find_regions(bcss.folder)


def test_missing_source_is_refused(tmp_path):
    with refused(tmp_path / "nowhere", "no such folder"):
        find_regions(tmp_path / "nowhere")


def test_two_image_folders_are_refused(bcss):
    (bcss.folder / "rgbs_colorNormalized").mkdir()
    with refused(bcss.folder, "rgbs, rgbs_colorNormalized"):
        find_regions(bcss.folder)


def test_no_image_folder_is_refused(tmp_path):
    (tmp_path / "masks").mkdir()
    with refused(tmp_path, "rgbs"):
        find_regions(tmp_path)


def test_empty_image_folder_is_refused(tmp_path):
    for kind in ("rgbs", "masks"):
        (tmp_path / kind).mkdir()
    with refused(tmp_path / "rgbs", "no images"):
        find_regions(tmp_path)


def test_image_without_mask_is_refused(bcss):
    stem = sorted(bcss.images)[3]
    (bcss.folder / "masks" / f"{stem}.png").unlink()
    with refused(bcss.folder / "rgbs" / f"{stem}.png", "no mask", "masks", f"{stem}.png"):
        find_regions(bcss.folder)


@pytest.mark.parametrize(
    "name", ["slide1.png", "TCGA-A1-AAAA-DX1.png", "TCGA-A1-AAAA-DX1_xmin1_ymin2_MPP-0.2.5.png", "._TCGA-A1-AAAA.png"]
)
def test_foreign_name_is_refused(bcss, name):
    for kind in ("rgbs", "masks"):
        Image.new("L", (8, 8)).save(bcss.folder / kind / name)
    with refused(bcss.folder / "rgbs" / name, "BCSS name"):
        find_regions(bcss.folder)


@pytest.mark.parametrize("kind", ["rgbs", "masks"])
def test_two_files_of_one_region_are_refused(bcss, kind):
    stem = sorted(bcss.images)[0]
    Image.open(bcss.folder / kind / f"{stem}.png").save(bcss.folder / kind / f"{stem}.bmp")
    with pytest.raises(InputError, match=stem):
        find_regions(bcss.folder)


def test_bcss_codes_stay_as_they_are(tmp_path):
    values = np.arange(22, dtype=np.uint8).reshape(2, 11)
    assert np.array_equal(to_codes(values, "bcss", tmp_path), values)


def test_tumor_coding_gives_tumor_and_other(tmp_path):
    codes = to_codes(np.array([[0, 1, 255], [255, 0, 0]], dtype=np.uint8), "tumor", tmp_path)
    names = [[CODE_NAMES[code] for code in row] for row in codes]
    assert names == [["other", "tumor", "tumor"], ["tumor", "other", "other"]]


@pytest.mark.parametrize(
    ("coding", "value"), [("bcss", 22), ("bcss", 254), ("tumor", 2), ("tumor", 254), ("bcss-wsss", 5)]
)
def test_unknown_code_is_refused_with_its_value(tmp_path, coding, value):
    values = np.zeros((3, 4), dtype=np.uint8)
    values[1, 2] = value
    with refused(tmp_path / "mask.png", f"code {value};"):
        to_codes(values, coding, tmp_path / "mask.png")


def test_binary_mask_is_told_about_the_tumor_coding(tmp_path):
    with refused(tmp_path / "mask.png", "--mask_coding tumor"):
        to_codes(np.array([[0, 255]], dtype=np.uint8), "bcss", tmp_path / "mask.png")
