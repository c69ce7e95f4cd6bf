"""Real slides from file to results, and one of them damaged."""

import csv
import json

import numpy as np
import openslide
import pytest
import tifffile
from stand_in_networks import DarkAndRed

from lightmuseg.slides import Options, segment_slides


def segment(slide, output, **options):
    chosen = Options(output_dir=output, class_names=("tumor", "stroma"), **options)
    segment_slides([slide], DarkAndRed(512), chosen, {})
    return output / slide.stem


@pytest.mark.parametrize(
    ("name", "reader", "mpp"),
    [
        ("CMU-1-Small-Region.svs", "cucim", None),
        ("TCGA-CR-7395-01A-01-TS1.svs", None, 0.5),
        ("pathml_small_dicom.dcm", "dicom", 0.5),
        ("highdicom_sm_image.dcm", "dicom", None),
    ],
)
def test_real_slide_goes_through(data, tmp_path, name, reader, mpp):
    folder = segment(data / "slides" / name, tmp_path, slide_mpp=mpp, overlap=0.0)
    record = json.loads((folder / "run.json").read_text())
    assert reader in (None, record["reader"])
    assert record["unread_tiles"] == 0
    assert 0 <= record["analysed_share"] <= 1
    with openslide.OpenSlide(folder / "classes.tif") as opened:
        assert opened.dimensions == tuple(record["map_size"])
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    classes = tifffile.imread(folder / "classes.tif")
    if min(record["level0_size"]) > 1000:
        assert set(np.unique(classes)) == {0, 1, 2}
        measured = {row["measure"]: row["value"] for row in csv.DictReader((folder / "measurements.csv").open())}
        assert float(measured["tumor_area"]) == pytest.approx((classes == 1).sum() * 0.25e-6, abs=1e-6)


def test_corrupt_tile_is_named_counted_and_marked(data, tmp_path):
    source = data / "slides" / "CMU-1-Small-Region.svs"
    slide = tmp_path / "damaged.svs"
    content = bytearray(source.read_bytes())
    with tifffile.TiffFile(source) as file:
        page = file.pages[0]
        columns = -(-page.imagewidth // page.tilewidth)
        number = 6 * columns + 4
        start, length = page.dataoffsets[number], page.databytecounts[number]
        x0, y0 = 4 * page.tilewidth, 6 * page.tilelength
    content[start : start + length] = bytes(length)
    slide.write_bytes(content)
    whole = tifffile.imread(segment(source, tmp_path / "whole", slide_mpp=0.25, tissue_mask=False) / "classes.tif")
    folder = segment(slide, tmp_path / "out", slide_mpp=0.25, tissue_mask=False)
    classes = tifffile.imread(folder / "classes.tif")
    unread = classes == 255
    assert unread[y0 // 2 : (y0 + page.tilelength) // 2, x0 // 2 : (x0 + page.tilewidth) // 2].all()
    assert unread.mean() < 0.2
    record = json.loads((folder / "run.json").read_text())
    assert record["unread_tiles"] >= 1
    assert all(str(slide) in place and f"{x0}, {y0}" in place for place in record["unread_places"])
    # what other tiles reach is as it was
    assert np.mean(classes[~unread] != whole[~unread]) < 0.01
    (row,) = csv.DictReader((tmp_path / "out" / "report.csv").open())
    assert row["status"] == "done"
    assert int(row["unread_tiles"]) == record["unread_tiles"]
