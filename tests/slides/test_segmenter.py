import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import threading
from types import SimpleNamespace

import filelock
import numpy as np
import openslide
import pytest
import shapely
import tifffile
import zarr
from PIL import Image
from shapely.geometry import shape

from lightmuseg.errors import InputError
from lightmuseg.runtimes import Parity, RuntimeInfo
from lightmuseg.slides import Options, segment_slides
from lightmuseg.view.result_list import Results
from lightmuseg.view.zoom_tiles import open_result_slide

MULTI = ("tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris")


class Shades:
    """A network that tells shades of grey apart: class k of K where the green channel is in the k-th part."""

    tile_size, output_stride, parity = 256, 2, None
    choice = "stand-in"
    info = RuntimeInfo("shades", "cpu", "float32", 1)

    def __init__(self, out_channels=1, after=None, stop=KeyboardInterrupt):
        self.out_channels = out_channels
        self.left = after
        self.stop = stop

    def __call__(self, tiles):
        if self.left is not None:
            self.left -= 1
            if self.left == -1:
                raise self.stop
        green = tiles[:, 1::2, 1::2, 1].astype(np.float32)[:, None]
        if self.out_channels == 1:
            return 127.5 - green
        centres = 255 * (np.arange(self.out_channels, dtype=np.float32) + 0.5) / self.out_channels
        return -np.abs(green - centres[:, None, None])


@pytest.fixture
def slide(tmp_path, write_plain_slide):
    return write_plain_slide(tmp_path / "Fälle" / "A 1.tif")


def segment(slides, output, runtime=None, names=("tumor",), model=None, **options):
    options = {"tissue_mask": False, "batch_size": 3, **options}
    slides = [slides] if isinstance(slides, str) else slides
    chosen = Options(output_dir=output, class_names=names, **options)
    return segment_slides(slides, runtime or Shades(), chosen, model or {})


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


def contents(folder):
    """The bytes of a folder's files by name, but for the record, which holds times."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "run.json"}  # fmt: skip


def expected_classes(slide, count):
    with tifffile.TiffFile(slide) as file:
        green = file.asarray()[1::2, 1::2, 1].astype(np.float32)
    if count == 1:
        return np.uint8(green < 128)
    centres = 255 * (np.arange(count + 1) + 0.5) / (count + 1)
    return np.uint8(np.abs(green - centres[:, None, None]).argmin(0))


@pytest.mark.parametrize("names", [("tumor",), MULTI])
def test_results_say_the_same_in_every_format(slide, tmp_path, names):
    runtime = Shades(1 if len(names) == 1 else len(names) + 1)
    segment(str(slide), tmp_path / "out", runtime, names, probabilities=True)
    folder = tmp_path / "out" / "A 1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "classes.tif", "measurements.csv", "overlay.png", "probabilities.zarr", "regions.geojson", "report.html",
        "run.json", "uncertainty.png",
    ]  # fmt: skip
    expected = expected_classes(slide, len(names))
    assert np.array_equal(tifffile.imread(folder / "classes.tif"), expected)
    with openslide.OpenSlide(folder / "classes.tif") as opened:
        assert opened.dimensions == (500, 500)
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    measured = {row["measure"]: row["value"] for row in csv.DictReader((folder / "measurements.csv").open())}
    features = json.loads((folder / "regions.geojson").read_text())["features"]
    assert all(shapely.is_valid(shape(feature["geometry"])) for feature in features)
    for index, name in enumerate(names, start=1):
        mm2 = (expected == index).sum() * 0.25e-6
        assert float(measured[f"{name}_area"]) == pytest.approx(mm2, abs=1e-6)
        drawn = [shape(one["geometry"]).area for one in features
                 if one["properties"]["classification"]["name"].lower().replace(" ", "_") == name]  # fmt: skip
        # level-0 pixels of 0.25 um
        assert sum(drawn) * 0.0625e-6 == pytest.approx(mm2, rel=0.02)
    probabilities = zarr.open_group(folder / "probabilities.zarr", mode="r")["0"][:]
    assert probabilities.shape == (runtime.out_channels, 500, 500)
    found = probabilities[0] > 127 if len(names) == 1 else probabilities.argmax(0)
    assert np.array_equal(found, expected)
    with Image.open(folder / "overlay.png") as overlay, Image.open(folder / "uncertainty.png") as uncertainty:
        assert overlay.width >= 1000
        assert uncertainty.width >= 1000
    page = (folder / "report.html").read_text(encoding="utf-8")
    shown = re.findall(r'<data value="(.*?)">', page)
    assert set(shown) == {value for name, value in measured.items() if name != "unread_area"}


def test_record_says_what_the_result_rests_on(slide, tmp_path):
    segment(str(slide), tmp_path / "out", model={"weights_sha256": "abc"}, overlap=0.5)
    record = json.loads((tmp_path / "out" / "A 1" / "run.json").read_text())
    assert record["model"] == {
        "weights_sha256": "abc", "runtime": "shades", "device": "cpu", "precision": "float32", "threads": 1
    }  # fmt: skip
    assert record["options"]["overlap"] == 0.5
    assert record["level0_mpp"] == pytest.approx(0.25)
    assert record["map_size"] == [500, 500]
    assert record["unread_tiles"] == 0
    # 250 um by 250 um
    assert record["warnings"] == ["tissue: only 0.062 mm2 were found, less than a core of 0.6 mm (0.28 mm2)."]
    (row,) = csv.DictReader((tmp_path / "out" / "report.csv").open())
    assert row["warnings"] == record["warnings"][0]
    assert record["warnings"][0][1:] in (tmp_path / "out" / "A 1" / "report.html").read_text(encoding="utf-8")
    assert set(record["seconds"]) == {"planning", "segmenting", "writing"}
    assert {"monai", "torch", "tifffile", "shapely"} <= set(record["packages"])


def test_output_resolution_is_the_wanted(slide, tmp_path):
    segment(str(slide), tmp_path / "out", output_mpp=2)
    with tifffile.TiffFile(tmp_path / "out" / "A 1" / "classes.tif") as file:
        assert file.pages[0].shape == (125, 125)
    with refused("--output_mpp 0.7", "0.25, 0.5, 1, 2"):
        segment(str(slide), tmp_path / "other", output_mpp=0.7)


def test_what_a_region_leaves_out_is_in_the_record(slide, tmp_path):
    box = {"type": "Polygon", "coordinates": [[[100, 200], [400, 200], [400, 600], [100, 600], [100, 200]]]}
    both = {"type": "GeometryCollection", "geometries": [box, {"type": "Point", "coordinates": [1, 2]}]}
    (tmp_path / "roi.geojson").write_text(json.dumps(both))
    segment(str(slide), tmp_path / "out", region=str(tmp_path / "roi.geojson"))
    record = json.loads((tmp_path / "out" / slide.stem / "run.json").read_text())
    assert [text for text in record["warnings"] if text.startswith("region: ") and "1 x Point" in text] != []
    segment(str(slide), tmp_path / "box", region="100,200,300,400")
    maps = [(tmp_path / name / slide.stem / "classes.tif").read_bytes() for name in ("out", "box")]
    assert maps[0] == maps[1]


def test_region_alone_is_segmented(slide, tmp_path):
    segment(str(slide), tmp_path / "out", region="100,200,300,400")
    classes = tifffile.imread(tmp_path / "out" / "A 1" / "classes.tif")
    inside = np.zeros_like(classes, bool)
    inside[100:300, 50:200] = True
    assert np.array_equal(classes, np.where(inside, expected_classes(slide, 1), 0))
    measured = {row["measure"]: row["value"] for row in csv.DictReader((tmp_path / "out/A 1/measurements.csv").open())}
    assert float(measured["tissue_area"]) == pytest.approx(300 * 400 * 0.0625e-6)


@pytest.mark.parametrize("ending", ["tif", "jpg"])
def test_a_name_that_is_no_unicode_is_a_name(slide, tmp_path, ending):
    odd = tmp_path / os.fsdecode(b"Pr\xe4parat." + ending.encode())
    try:
        odd.write_bytes(b"")
    except OSError:
        pytest.skip("this file system has no such names")
    plain = tmp_path / f"plain.{ending}"
    if ending == "tif":
        shutil.copy(slide, plain)
    else:
        Image.fromarray(tifffile.imread(slide)[:600, :600]).save(plain)
    shutil.copy(plain, odd)
    rows = segment([str(plain), str(odd)], tmp_path / "out", slide_mpp=0.25)
    assert [row["status"] for row in rows] == ["done", "done"]
    maps = [(tmp_path / "out" / path.stem / "classes.tif").read_bytes() for path in (plain, odd)]
    assert maps[0] == maps[1]
    # text that any program reads
    listed = [row["slide"] for row in csv.DictReader((tmp_path / "out" / "report.csv").open(encoding="utf-8"))]
    assert listed[1].endswith(f"Pr\\udce4parat.{ending}")
    assert "Pr\\udce4parat" in (tmp_path / "out" / odd.stem / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out" / odd.stem / "run.json").read_bytes())["slide"] == str(odd)


def test_failing_slides_are_reported_and_the_others_go_on(tmp_path, caplog, write_plain_slide):
    slides = [write_plain_slide(tmp_path / f"{name}.tif", seed) for seed, name in enumerate("abc")]
    slides[1].write_bytes(slides[1].read_bytes()[:3000])
    with refused("2 of 4 slides failed", "report.csv"):
        segment([*map(str, slides), str(tmp_path / "missing.svs")], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert str(slides[1]) in rows[1]["message"]
    assert "missing.svs" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "c", "report.csv"]


def test_a_path_that_cannot_be_looked_at_fails_alone(tmp_path, slide):
    with refused("1 of 2 slides failed"):
        segment([f"{tmp_path}/{'x' * 300}.svs", str(slide)], tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [row["status"] for row in rows] == ["failed", "done"]


def test_changed_without_resume_is_refused(tmp_path):
    with refused("--changed", "add --resume"):
        Options(output_dir=tmp_path, class_names=("tumor",), changed=True)


def test_bug_on_one_slide_stops_no_other(tmp_path, caplog, write_plain_slide):
    slides = [str(write_plain_slide(tmp_path / f"{name}.tif")) for name in "ab"]
    with refused("1 of 2 slides failed"):
        segment(slides, tmp_path / "out", Shades(after=5, stop=ZeroDivisionError("oh")), resume=True)
    assert "Traceback" in caplog.text
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert "ZeroDivisionError: oh" in rows[0]["message"]


def test_report_keeps_the_slides_of_earlier_calls(tmp_path, write_plain_slide):
    for seed, name in enumerate("ab"):
        segment(str(write_plain_slide(tmp_path / f"{name}.tif", seed)), tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "report.csv").open()))
    assert [row["slide"][-5:] for row in rows] == ["a.tif", "b.tif"]


def test_a_slide_called_like_a_formula_has_one_row_that_no_spreadsheet_runs(tmp_path, monkeypatch, write_plain_slide):
    monkeypatch.chdir(tmp_path)
    for name in ("=HYPERLINK(1).tif", "'=HYPERLINK(1).tif"):
        slide = str(write_plain_slide(tmp_path / name).relative_to(tmp_path))
        for _ in range(2):
            segment(slide, tmp_path / "out", resume=True)
    with open("out/report.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == ["'=HYPERLINK(1).tif", "''=HYPERLINK(1).tif"]
    assert {row["message"] for row in rows} == {"was done before"}


def test_a_report_that_cannot_be_read_is_refused_before_any_slide(slide, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.csv").write_bytes(b"slide\n\xff\n")
    with refused("report.csv", "no CSV file in UTF-8", "move it away"):
        segment(str(slide), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.csv"]


def test_slides_of_one_name_are_refused_before_any_is_read(tmp_path, write_plain_slide):
    slides = [str(write_plain_slide(tmp_path / folder / "a.tif")) for folder in ("x", "y")]
    with refused(slides[1], "same folder", slides[0]):
        segment(slides, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_are_never_overwritten(slide, tmp_path):
    segment(str(slide), tmp_path / "out")
    before = contents(tmp_path / "out" / "A 1")
    with refused("A 1", "is there already"):
        segment(str(slide), tmp_path / "out")
    (tmp_path / "out" / ".A 1.partial").mkdir()
    assert segment(str(slide), tmp_path / "out", resume=True)[0]["message"] == "was done before"
    assert not (tmp_path / "out" / ".A 1.partial").exists()
    assert contents(tmp_path / "out" / "A 1") == before


@pytest.mark.parametrize("after", [4, 6, 8])
def test_interrupted_run_goes_on_to_the_same_bytes(slide, tmp_path, after, caplog):
    segment(str(slide), tmp_path / "once", probabilities=True)
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=after), probabilities=True)
    assert "--resume" in caplog.text
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".A 1.partial"]
    with refused(".A 1.partial", "--resume"):
        segment(str(slide), tmp_path / "out", probabilities=True)
    segment(str(slide), tmp_path / "out", probabilities=True, resume=True)
    assert contents(tmp_path / "out" / "A 1") == contents(tmp_path / "once" / "A 1")
    assert not (tmp_path / "out" / ".A 1.partial").exists()


class FillsTheDisk(Shades):
    """A network during whose fifth batch somebody fills the disk."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.count = folder, 0

    def __call__(self, tiles):
        self.count += 1
        if self.count == 5:
            with contextlib.suppress(OSError), open(self.folder / "ballast", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        return super().__call__(tiles)


def test_full_disk_is_said_and_what_was_done_is_gone_on_from(slide, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("cannot mount a disk here")
    try:
        segment(str(slide), tmp_path / "once")
        with refused("No space left", str(disk)):
            segment(str(slide), disk / "out", FillsTheDisk(disk))
        assert not (disk / "out" / "A 1").exists()
        assert len(list((disk / "out" / ".A 1.partial" / "rows").iterdir())) > 0
        (disk / "ballast").unlink()
        segment(str(slide), disk / "out", resume=True)
        assert contents(disk / "out" / "A 1") == contents(tmp_path / "once" / "A 1")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"overlap": 0.5}, "overlap"),
        ({"model": {"weights_sha256": "b", "limits": "few", "name": "other"}}, "weights_sha256"),
        ({"batch_size": 2}, "batch"),
    ],
)
def test_interrupted_run_does_not_go_on_with_other_options(slide, tmp_path, changed, named):
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=5), model={"weights_sha256": "a"})
    with refused(".A 1.partial", named):
        segment(str(slide), tmp_path / "out", **{"model": {"weights_sha256": "a"}, "resume": True, **changed})


def test_interrupted_run_ends_in_other_formats_if_these_are_wanted_now(slide, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=5))
    segment(str(slide), tmp_path / "out", resume=True, ome=True)
    assert (tmp_path / "out" / "A 1" / "classes.ome.tif").exists()


def test_region_given_as_numbers_is_the_one_given_as_text(slide, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=2), region="0,0,600,600.5")
    segment(str(slide), tmp_path / "out", resume=True, region=(0, 0, 600, 600.5))
    segment(str(slide), tmp_path / "once", region="0,0,600,600.5")
    assert contents(tmp_path / "out" / "A 1") == contents(tmp_path / "once" / "A 1")


def test_another_slide_of_the_same_name_does_not_go_on(slide, tmp_path, write_plain_slide):
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=5))
    write_plain_slide(slide, 3, 1125)
    with refused(".A 1.partial", "another slide"):
        segment(str(slide), tmp_path / "out", resume=True)


def test_two_processes_are_not_at_one_slide(slide, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=5))
    with filelock.FileLock(tmp_path / "out" / ".A 1.partial" / "lock"):
        failure = SimpleNamespace(error=None)

        def other():
            try:
                segment(str(slide), tmp_path / "out", resume=True)
            except InputError as error:
                failure.error = str(error)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another process" in failure.error


def test_network_of_other_classes_is_refused(slide, tmp_path):
    with refused("1 outputs, not 5", "tumor, stroma"):
        segment(str(slide), tmp_path / "out", Shades(1), MULTI)


@pytest.mark.parametrize(
    ("options", "named"),
    [({"overlap": 0.9}, "--overlap 0.9"), ({"batch_size": 0}, "--batch_size 0"), ({"resume": "true"}, "--resume true"),
     ({"tolerance": -1}, "--tolerance -1"), ({"workers": 1.5}, "--workers 1.5"), ({"mpp": 0}, "um per pixel 0"),
     ({"overlap": "a"}, "--overlap a"), ({"slide_mpp": float("nan")}, "--mpp (slide_mpp) nan"),
     ({"backend": "vips"}, "vips"), ({"region": "1,2,3"}, "--region")],
)  # fmt: skip
def test_option_that_cannot_be_is_refused_with_its_value(slide, tmp_path, options, named):
    with refused(named):
        segment(str(slide), tmp_path / "out", **options)
    assert not (tmp_path / "out" / "A 1").exists()


class OtherShades(Shades):
    """The same network by another runtime."""

    info = RuntimeInfo("other", "cpu", "float32", 1)


def test_a_run_is_not_finished_by_another_runtime(tmp_path, write_plain_slide):
    slide = write_plain_slide(tmp_path / "A 1.tif")
    with pytest.raises(KeyboardInterrupt):
        segment(str(slide), tmp_path / "out", Shades(after=5))
    with refused("was started with runtime 'shades', not 'other'"):
        segment(str(slide), tmp_path / "out", OtherShades(), resume=True)


def test_the_proof_of_the_runtime_and_why_it_was_taken_are_recorded(tmp_path, write_plain_slide):
    slide, runtime = write_plain_slide(tmp_path / "A 1.tif"), Shades()
    runtime.parity, runtime.choice = Parity("float32", 4, 1e-6, 0.0), "it was asked for"
    segment(str(slide), tmp_path / "out", runtime)
    record = json.loads((tmp_path / "out" / "A 1" / "run.json").read_text())
    assert record["parity"] == {"precision": "float32", "tiles": 4, "error": 1e-6, "changed": 0.0}
    assert record["runtime_choice"] == "it was asked for"


def test_a_folder_of_two_slides_in_dicom_asks_for_a_file_and_a_file_is_one_of_them(data, tmp_path):
    folder = data / "slide_cases" / "dicom_two_slides"
    with refused(str(folder), "holds 2 slides, such as a_glass.dcm and b_tissue.dcm", "name a file"):
        segment(str(folder), tmp_path / "out")
    rows = segment([str(folder / "b_tissue.dcm"), str(folder / "a_glass.dcm")], tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "done"]
    maps = [tifffile.imread(tmp_path / "out" / name / "classes.tif") for name in ("a_glass", "b_tissue")]
    assert [classes.any() for classes in maps] == [False, True]


def test_all_files_of_a_slide_in_dicom_are_one_slide(data, tmp_path):
    pydicom = pytest.importorskip("pydicom")
    header = pydicom.dcmread(data / "slide_cases" / "dicom_two_slides" / "b_tissue.dcm")
    for name, number in (("1.2.3.4", 1), ("1.2.3.5", 2)):
        header.SOPInstanceUID = f"1.2.{number}"
        header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.00025 * number] * 2
        header.save_as(tmp_path / name)
        header.PixelData = pydicom.encaps.encapsulate([next(pydicom.encaps.generate_frames(header.PixelData))])
        header["PixelData"].is_undefined_length = True
        header.NumberOfFrames, header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows = 1, 256, 256
    # as the shell writes out SERIES/*
    assert len(segment([str(tmp_path / name) for name in ("1.2.3.5", "1.2.3.4")], tmp_path / "out")) == 1
    record = json.loads((tmp_path / "out" / "1.2.3.5" / "run.json").read_text())
    assert (record["level0_size"], record["level0_mpp"]) == ([512, 512], pytest.approx(0.25))


def test_a_dicom_segmentation_that_cannot_be_is_refused_before_the_work(slide, tmp_path):
    with refused(str(slide), "is no DICOM whole-slide image", "leave out --dicom-seg"):
        segment(str(slide), tmp_path / "out", Shades(after=0, stop=AssertionError), dicom_seg=True)


def test_another_picture_of_a_tiff_is_chosen_and_the_choice_is_recorded(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [np.kron(rng.integers(0, 256, (side // 20, side // 20, 3)), np.ones((20, 20, 1))).astype(np.uint8)
              for side in (300, 400)]  # fmt: skip
    slide = tmp_path / "slide.tif"
    with tifffile.TiffWriter(slide) as file:
        for pixels in scenes:
            file.write(pixels, tile=(128, 128), photometric="rgb", resolution=(4e4, 4e4), resolutionunit="CENTIMETER")
    for series, number, others in ((None, 1, [0]), (0, 0, [1])):
        output = tmp_path / f"out{number}"
        segment(str(slide), output, series=series)
        record = json.loads((output / "slide" / "run.json").read_text())
        expected = (scenes[number][1::2, 1::2, 1] < 128).astype(np.uint8)
        assert np.array_equal(tifffile.imread(output / "slide" / "classes.tif"), expected)
        assert record["options"]["series"] == series
        assert (record["picture"]["series"], record["picture"]["of"]) == (number, 2)
        assert record["picture"]["could_be_meant"] == others
        assert any(warning.startswith("picture: ") for warning in record["warnings"])
        result = Results(output).refresh()[0]
        with open_result_slide(result) as reader:
            assert np.array_equal(reader.read(0, 0, 0, 300, 300), scenes[number][:300, :300])
    with refused("slide.tif", "no picture 2", "0 page 0", "1 page 1"):
        segment(str(slide), tmp_path / "none", series=2)
    with refused("--series -1"):
        segment(str(slide), tmp_path / "none", series=-1)
