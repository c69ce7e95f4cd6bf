import csv
import hashlib
import json
import os
import re
import shutil
import signal
import threading

import filelock
import pydicom
import pytest

import lightmuseg.cohort.slide_worker
import lightmuseg.slides.job
from lightmuseg.cli.cohort_commands import cohort as command
from lightmuseg.cohort import segment_cohort
from lightmuseg.cohort.cohort_state import CohortState
from lightmuseg.cohort.cohort_table import CohortTable
from lightmuseg.cohort.slide_worker import SlideWorker
from lightmuseg.cohort.work_list import work_list
from lightmuseg.errors import InputError
from lightmuseg.slides import Segmenter
from lightmuseg.text_files import read_csv, write_csv


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


def table(folder):
    with open(folder / "cohort.csv", newline="", encoding="utf-8") as file:
        return {row["results"]: row for row in csv.DictReader(file)}


@pytest.fixture
def slides(make_slide, tmp_path):
    """Two good slides of one name, and a damaged one."""
    make_slide("p1/HE.tif", 1)
    make_slide("p2/HE.tif", 2, 625)
    damaged = make_slide("p2/damaged.tif", 3)
    damaged.write_bytes(damaged.read_bytes()[:3000])
    return tmp_path / "slides"


def test_a_bad_slide_is_listed_and_the_same_command_does_only_what_is_missing(cohort, slides, tmp_path, caplog):
    out = tmp_path / "out"
    run = cohort()
    assert (run.done, run.failed) == (2, 1)
    rows = table(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "p1/HE": "done", "p2/HE": "done", "p2/damaged": "failed",
    }  # fmt: skip
    assert str(slides / "p2" / "damaged.tif") in rows["p2/damaged"]["message"]
    assert "damaged.tif" in caplog.text
    record = json.loads((out / "p2" / "HE" / "run.json").read_text())
    assert rows["p2/HE"]["tiles"] == str(record["tiles"])
    assert float(rows["p2/HE"]["seconds_segmenting"]) == record["seconds"]["segmenting"]
    measured = {row["measure"]: row["value"] for row in csv.DictReader((out / "p2/HE/measurements.csv").open())}
    assert {name: rows["p2/HE"][name] for name in measured} == measured
    assert float(measured["tissue_area"]) == pytest.approx((625 * 0.25e-3) ** 2, rel=0.01)
    moments = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    (slides / "p2" / "damaged.tif").write_bytes((slides / "p1" / "HE.tif").read_bytes())
    run = cohort()
    assert (run.done, run.failed) == (3, 0)
    assert {path: path.stat().st_mtime_ns for path in moments} == moments
    assert table(out)["p2/damaged"]["status"] == "done"
    assert not any(path.name.startswith(".") for path in out.rglob("*") if path.name != ".cohort")


def test_broken_results_are_done_again_and_those_of_a_changed_slide_when_asked(cohort, make_slide, contents, tmp_path):
    out = tmp_path / "out"
    slides = [make_slide(f"p1/{name}.tif", seed) for seed, name in enumerate("abc")]
    cohort()
    before = contents(out)
    for path in (out / "p1" / "b").iterdir():
        path.write_bytes(b"")
    make_slide("p1/c.tif", 9)
    moment = (out / "p1" / "a" / "run.json").stat().st_mtime_ns
    run = cohort()
    assert (run.done, run.failed) == (3, 0)
    rows = table(out)
    assert [rows[f"p1/{name}"]["status"] for name in "abc"] == ["done", "done", "changed"]
    assert "run.json is damaged" in rows["p1/b"]["message"]
    assert ".b.kept-1" in rows["p1/b"]["message"]
    assert "--changed" in rows["p1/c"]["message"]
    after = contents(out)
    assert {name: content for name, content in after.items() if not name.endswith("run.json")} == {
        name: content for name, content in before.items() if not name.endswith("run.json")
    }
    assert len(list((out / "p1" / ".b.kept-1").iterdir())) == len(list((out / "p1" / "b").iterdir()))
    cohort(values={"changed": True})
    rows = table(out)
    assert [rows[f"p1/{name}"]["status"] for name in "abc"] == ["done"] * 3
    record = json.loads((out / "p1" / "c" / "run.json").read_text())
    assert record["slide_sha256"] == hashlib.sha256(slides[2].read_bytes()).hexdigest()
    assert contents(out)["p1/c/classes.tif"] != after["p1/c/classes.tif"]
    assert (out / "p1" / "a" / "run.json").stat().st_mtime_ns == moment
    cohort(values={"changed": True})
    assert len(list((out / "p1").glob(".*.kept-*"))) == 2


def test_a_slide_that_was_replaced_before_it_was_done_is_started_again(cohort, make_slide, contents, tmp_path):
    out = tmp_path / "out"
    make_slide("a.tif", 1, 1000)
    cohort(slides_at_once=1)
    once = contents(out)
    shutil.rmtree(out)
    make_slide("a.tif", 2, 1000)
    with pytest.raises(KeyboardInterrupt):
        cohort(runtime="Stopping()")
    assert len(list((out / ".a.partial" / "rows").iterdir())) > 0
    # no death is counted of a process that is stopped
    assert not (out / ".a.partial" / "attempts.json").exists()
    make_slide("a.tif", 1, 1000)
    cohort()
    assert "started with another slide" in table(out)["a"]["message"]
    assert contents(out)["a/classes.tif"] == once["a/classes.tif"]


def test_any_coordinator_writes_the_same_table(cohort, slides, tmp_path):
    cohort(shard="1/2")
    assert [row["status"] for row in table(tmp_path / "out").values()].count("waiting") >= 1
    cohort(shard="2/2")
    first = (tmp_path / "out" / "cohort.csv").read_bytes(), (tmp_path / "out" / "cohort.html").read_bytes()
    (slides / "p2" / "damaged.tif").unlink()
    (tmp_path / "out" / "cohort.csv").unlink()
    manifest = slides / "list.csv"
    manifest.write_text("slide\np1/HE.tif\np2/HE.tif\n")
    cohort(manifest)
    again = (tmp_path / "out" / "cohort.csv").read_text().splitlines()
    assert first[0].decode().splitlines()[1:3] == again[1:]


def test_a_manifest_gives_um_per_pixel_patient_and_stain(cohort, slides, tmp_path):
    manifest = slides / "list.csv"
    manifest.write_text("slide,mpp,patient,stain\np1/HE.tif,0.5,=1+1,@H&E\np2/HE.tif,,P 2,\n")
    cohort(manifest)
    mpps = [json.loads((tmp_path / "out" / name / "HE/run.json").read_text())["level0_mpp"] for name in ("p1", "p2")]
    assert mpps == [0.5, 0.25]
    rows = table(tmp_path / "out")
    # no spreadsheet runs it
    assert (rows["p1/HE"]["patient"], rows["p1/HE"]["stain"]) == ("'=1+1", "'@H&E")
    assert rows["p2/HE"]["patient"] == "P 2"


def test_results_of_a_slide_that_is_gone_keep_their_row(cohort, slides, tmp_path):
    out = tmp_path / "out"
    cohort()
    before = table(out)
    (slides / "p1" / "HE.tif").unlink()
    (slides / "p2" / "damaged.tif").unlink()
    for _ in range(2):
        assert cohort().failed == 0
        after = table(out)
        assert {name: row["status"] for name, row in after.items()} == {"p1/HE": "not named", "p2/HE": "done"}
        assert "not named any more; delete the folder" in after["p1/HE"].pop("message")
        kept = [name for name in after["p1/HE"] if name != "status"]
        assert {name: after["p1/HE"][name] for name in kept} == {name: before["p1/HE"][name] for name in kept}
        page = (out / "cohort.html").read_text(encoding="utf-8")
        assert "./p1/HE/report.html" in page
        assert "not named any more</dt><dd>1<" in page
    shutil.rmtree(out / "p1")
    cohort()
    assert list(table(out)) == ["p2/HE"]


def test_a_result_whose_slide_is_not_named_and_that_is_broken_keeps_its_row_as_failed(cohort, slides, tmp_path):
    cohort()
    (slides / "p1" / "HE.tif").unlink()
    (slides / "p2" / "damaged.tif").unlink()
    os.truncate(tmp_path / "out" / "p1" / "HE" / "classes.tif", 10)
    cohort()
    row = table(tmp_path / "out")["p1/HE"]
    assert row["status"] == "failed"
    assert "classes.tif has 10 bytes" in row["message"]


def test_commands_with_other_slides_that_write_one_table_leave_each_others_rows(cohort, make_slide, tmp_path):
    for name in "ab":
        make_slide(f"{name}.tif")
    first, second = (
        CohortTable(
            work_list([str(tmp_path / "slides" / f"{name}.tif")], tmp_path / "out"), CohortState(tmp_path / "out")
        )
        for name in "ab"
    )
    cohort()
    (tmp_path / "out" / "cohort.csv").unlink()
    for _ in range(2):
        for one in (first, second):
            one.write()
    assert list(table(tmp_path / "out")) == ["a", "b"]


def test_changed_of_a_config_holds(make_slide, tmp_path, root, override):
    make_slide("a.tif")
    config = override(changed=True)
    segment_cohort([str(tmp_path / "slides")], tmp_path / "out", root / "bundle", config)
    make_slide("a.tif", seed=3)
    segment_cohort([str(tmp_path / "slides")], tmp_path / "out", root / "bundle", config)
    assert (tmp_path / "out" / ".a.kept-1").is_dir()
    make_slide("a.tif", seed=4)
    segment_cohort([str(tmp_path / "slides")], tmp_path / "out", root / "bundle", config, {"changed": False})
    assert not (tmp_path / "out" / ".a.kept-2").exists()


def test_a_table_that_leads_out_of_its_folder_is_not_followed(cohort, make_slide, tmp_path):
    make_slide("a.tif")
    cohort()
    shutil.copytree(tmp_path / "out" / "a", tmp_path / "elsewhere")
    rows = read_csv(tmp_path / "out" / "cohort.csv")
    others = [{**rows[0], "results": name} for name in ("../elsewhere", str(tmp_path / "elsewhere"), "")]
    write_csv(tmp_path / "out" / "cohort.csv", [*rows, *others])
    cohort()
    assert list(table(tmp_path / "out")) == ["a"]
    (tmp_path / "out" / "cohort.csv").write_bytes(b"\xff\0")
    cohort()
    assert list(table(tmp_path / "out")) == ["a"]


def test_what_cannot_be_tried_is_a_failed_slide_and_the_others_are_done(cohort, slides, tmp_path, caplog):
    (slides / "p1" / "HE.svs").write_bytes(b"x")
    (slides / "list.csv").write_text("slide;mpp\np1/HE.svs;\np1/HE.tif;0,25\np2/HE.tif;0,5\n;;\ngone.tif;\n;0,25\n")
    for _ in range(2):
        run = cohort(slides / "list.csv")
        assert (run.done, run.failed) == (1, 4)
        with open(tmp_path / "out" / "cohort.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert sorted((row["results"], row["status"]) for row in rows) == [
            ("gone", "failed"), ("list.csv, line 7", "failed"), ("p1/HE", "failed"), ("p1/HE", "failed"),
            ("p2/HE", "done"),
        ]  # fmt: skip
        assert sorted(caplog.messages) == sorted(row["message"] for row in rows if row["status"] == "failed")
        caplog.clear()
    assert json.loads((tmp_path / "out" / "p2" / "HE" / "run.json").read_text())["level0_mpp"] == 0.5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".cohort", "cohort.csv", "cohort.html", "p2"]


def test_each_slide_of_the_proof_is_read_by_its_own_um_per_pixel(cohort, make_slide, tmp_path, monkeypatch):
    for name, side in (("a", 900), ("b", 700)):
        make_slide(f"{name}.tif", side=side)
    (tmp_path / "slides" / "list.csv").write_text("slide,mpp\na.tif,0.5\nb.tif,\n")
    given = []

    original = Segmenter.runtime

    def runtime(segmenter, slides=(), options=None):
        if slides:
            given.append((sorted((str(path), mpp) for path, mpp in slides), segmenter.options.slide_mpp))
        return original(segmenter, slides, options)

    monkeypatch.setattr(Segmenter, "runtime", runtime)
    cohort(tmp_path / "slides" / "list.csv", values={"slide_mpp": 0.3})
    slides = tmp_path / "slides"
    assert given == [([(str(slides / "a.tif"), 0.5), (str(slides / "b.tif"), None)], 0.3)]


def test_um_per_pixel_of_an_override_hold_where_the_manifest_says_nothing(make_slide, tmp_path, root, override):
    for name in "ab":
        make_slide(f"{name}.tif")
    (tmp_path / "slides" / "list.csv").write_text("slide,mpp\na.tif,0.3\nb.tif,\n")
    segment_cohort([str(tmp_path / "slides" / "list.csv")], tmp_path / "out", root / "bundle", override(slide_mpp=0.5))
    mpps = [json.loads((tmp_path / "out" / name / "run.json").read_text())["level0_mpp"] for name in "ab"]
    assert mpps == [0.3, 0.5]


def test_a_cohort_started_with_other_options_is_not_gone_on_with(cohort, make_slide, tmp_path):
    make_slide("a.tif")
    cohort(values={"overlap": 0.25})
    make_slide("b.tif")
    with refused(str(tmp_path / "out"), "overlap 0.25, not 0.5", "the same options, or another --output"):
        cohort(values={"overlap": 0.5})
    before = (tmp_path / "out" / "cohort.csv").read_bytes()
    with refused("slide_mpp None, not 0.5"):
        cohort(values={"overlap": 0.25, "slide_mpp": 0.5})
    assert (tmp_path / "out" / "cohort.csv").read_bytes() == before
    assert not (tmp_path / "out" / "b").exists()
    cohort(values={"overlap": 0.25, "workers": 1})
    assert (tmp_path / "out" / "b" / "run.json").is_file()


def test_an_overrides_um_per_pixel_hold(make_slide, tmp_path, root, override):
    make_slide("HE.tif")
    segment_cohort([str(tmp_path / "slides")], tmp_path / "out", root / "bundle", override(slide_mpp=0.5))
    assert json.loads((tmp_path / "out" / "HE" / "run.json").read_text())["level0_mpp"] == 0.5


def test_a_slide_that_another_process_holds_is_looked_at_again(cohort, make_slide, tmp_path, monkeypatch):
    monkeypatch.setattr(lightmuseg.cohort.slide_worker, "AGAIN_S", 0.2)
    make_slide("held.tif", side=750)
    make_slide("free.tif")
    partial = tmp_path / "out" / ".held.partial"
    partial.mkdir(parents=True)
    lock = filelock.FileLock(partial / "lock", thread_local=False)
    lock.acquire()
    seen = []

    def let_go():
        seen.append(((tmp_path / "out" / "free" / "run.json").exists(), (tmp_path / "out" / "held").exists()))
        lock.release()

    original = SlideWorker.__call__

    def call(worker, slide):
        status = original(worker, slide)
        if status == "busy" and not seen and (tmp_path / "out" / "free" / "run.json").exists():
            threading.Timer(0.1, let_go).start()
        return status

    monkeypatch.setattr(SlideWorker, "__call__", call)
    assert cohort().done == 2
    assert seen == [(True, False)]
    assert (tmp_path / "out" / "held" / "run.json").is_file()


def test_a_slide_of_which_another_coordinator_says_that_it_failed_is_not_tried_again(
    cohort, slides, tmp_path, monkeypatch
):
    tried = []
    original = SlideWorker.__call__

    def call(worker, slide):
        tried.append(slide.name)
        if len(tried) == 1:
            monkeypatch.setattr(SlideWorker, "__call__", original)
            assert cohort().failed == 1
            monkeypatch.setattr(SlideWorker, "__call__", call)
        return original(worker, slide)

    monkeypatch.setattr(SlideWorker, "__call__", call)
    run = cohort()
    assert (run.done, run.failed) == (2, 1)
    assert "p2/damaged" not in tried[1:]


def test_stopping_says_how_to_go_on(slides, root, override, tmp_path, monkeypatch, capsys):
    def stop(worker, slide):
        raise KeyboardInterrupt

    monkeypatch.setattr(SlideWorker, "__call__", stop)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        command(str(slides), output=str(tmp_path / "out"), bundle=str(root / "bundle"), override=str(override()))
    assert f"{tmp_path / 'out'}: stopped; the same command goes on" in capsys.readouterr().err
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"waiting"}


def test_of_very_many_slides_that_cannot_be_tried_some_are_logged(cohort, make_slide, tmp_path, caplog):
    make_slide("a.tif")
    lines = [f"gone {number}.tif" for number in range(30)]
    (tmp_path / "slides" / "list.csv").write_text("\n".join(["slide", "a.tif", *lines]))
    assert cohort(tmp_path / "slides" / "list.csv").failed == 30
    assert len(caplog.messages) == 21
    assert caplog.messages[20] == f"10 more; see {tmp_path / 'out' / 'cohort.csv'}"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"engine": "spark"}, ["--engine spark", "local, ray"]),
        ({"address": "auto"}, ["--address", "--engine ray"]),
        ({"gpus_per_worker": 0.5}, ["--gpus-per-worker", "--engine ray"]),
        ({"gpus_per_worker": 2, "engine": "ray"}, ["--gpus-per-worker 2"]),
        ({"slides_at_once": 0}, ["--slides-at-once 0"]),
        ({"shard": "3/2"}, ["--shard 3/2"]),
        ({"values": {"runtime": "auto"}}, ["--runtime auto"]),
        ({"values": {"overlap": 0.9}}, ["--overlap 0.9"]),
    ],
)
def test_an_option_that_cannot_be_is_refused(cohort, make_slide, options, named, tmp_path):
    make_slide("a.tif")
    with refused(*named):
        cohort(**options)
    assert not (tmp_path / "out" / "a").exists()


def test_the_page_needs_nothing_else_and_shows_names_as_text(cohort, make_slide, tmp_path):
    name = "<img src=x onerror=alert(1)> & #50%?"
    make_slide(f"{name}.tif")
    cohort()
    text = (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; #50%?" in text
    # links lead to the report and the overlay, and to no other place
    targets = re.findall(r'(?:href|src)="([^"]*)"', text)
    results = "./%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%20%26%20%2350%25%3F"
    assert targets == [f"{results}/report.html", f"{results}/overlay.png"]
    assert "http" not in text.replace("http-equiv", "")


@pytest.mark.parametrize("way", ["folder", "glob", "manifest"])
def test_slides_and_folders_may_be_called_like_signs_of_configs(cohort, make_slide, tmp_path, way):
    names = ("a@##b", "a#b", "$1+1", "%a", "@slides", "p::1/x@#y")
    for seed, name in enumerate(names):
        make_slide(f"{name}.tif", seed)
    slides = tmp_path / "slides"
    if way == "manifest":
        (slides / "@#list.csv").write_text("".join(["slide\n", *(f"{name}.tif\n" for name in names)]))
    source = {"folder": slides, "glob": slides / "**" / "*.tif", "manifest": slides / "@#list.csv"}[way]
    output = tmp_path / "$out@##"
    cohort(source, output=output)
    assert {row["results"]: row["status"] for row in read_csv(output / "cohort.csv")} == dict.fromkeys(names, "done")
    for name in names:
        record = json.loads((output / name / "run.json").read_text())
        assert record["slide_sha256"] == hashlib.sha256((slides / f"{name}.tif").read_bytes()).hexdigest()


def test_a_name_that_is_no_unicode_stops_no_other_slide(cohort, make_slide, tmp_path):
    good, odd = make_slide("good.tif"), os.fsdecode(b"caf\xe9")
    try:
        good.with_name(f"{odd}.tif").symlink_to(good)
    except OSError:
        pytest.skip("this file system has no such names")
    good.with_name(f"{odd} 2.tif").write_bytes(b"no slide")
    run = cohort()
    assert (run.done, run.failed) == (2, 1)
    rows = table(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "done", "caf\\udce9": "done", "caf\\udce9 2": "failed",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / odd / "run.json").read_text())["slide"].endswith(f"{odd}.tif")
    assert "./caf%E9/report.html" in (tmp_path / "out" / "cohort.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_slides_in_dicom_fail_each_alone(cohort, data, tmp_path):
    """Two slides in a folder, one that cannot be read, and one of which nothing can be decoded."""
    folder = tmp_path / "slides" / "archive"
    folder.mkdir(parents=True)
    for path in (data / "slide_cases" / "dicom_two_slides").iterdir():
        shutil.copy(path, folder)
    shutil.copy(data / "slide_cases" / "damaged" / "dicom-transfer-syntax-jpeg2000.dcm", folder / "other")
    (folder / "broken.dcm").write_bytes((folder / "b_tissue.dcm").read_bytes()[:900])
    run = cohort(values={"slide_mpp": 0.25})
    assert (run.done, run.failed) == (2, 2)
    rows = table(tmp_path / "out")
    assert {name: row["status"] for name, row in rows.items()} == {
        "archive/a_glass": "done", "archive/b_tissue": "done", "archive/broken": "failed", "archive/other": "failed"
    }  # fmt: skip
    assert [float(rows[f"archive/{name}"]["tumor_area"]) > 0 for name in ("a_glass", "b_tissue")] == [False, True]


def test_a_dicom_segmentation_that_cannot_be_fails_before_the_slides_work(
    cohort, data, make_slide, tmp_path, monkeypatch
):
    segmented, fill_rows = [], lightmuseg.slides.job.fill_rows

    def noted(view, *rest):
        segmented.append(view.reader.path.name)
        return fill_rows(view, *rest)

    monkeypatch.setattr(lightmuseg.slides.job, "fill_rows", noted)
    make_slide("plain.tif")
    nowhere = pydicom.dcmread(data / "slide_cases" / "dicom_two_slides" / "b_tissue.dcm")
    del nowhere.FrameOfReferenceUID
    nowhere.save_as(tmp_path / "slides" / "nowhere.dcm")
    shutil.copy(data / "slides" / "highdicom_sm_image.dcm", tmp_path / "slides")
    run = cohort(values={"dicom_seg": True, "slide_mpp": 0.25})
    assert (run.done, run.failed) == (1, 2)
    assert segmented == ["highdicom_sm_image.dcm"]
    assert (tmp_path / "out" / "highdicom_sm_image" / "classes.dcm").is_file()
    rows = table(tmp_path / "out")
    assert "is no DICOM whole-slide image" in rows["plain"]["message"]
    assert "lacks FrameOfReferenceUID" in rows["nowhere"]["message"]


@pytest.mark.cohort
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_name_that_is_no_unicode_reaches_workers_in_other_processes(command, make_slide, tmp_path, engine):
    pytest.importorskip("ray")
    good, odd = make_slide("good.tif"), os.fsdecode(b"caf\xe9.tif")
    try:
        good.rename(good.with_name(odd))
    except OSError:
        pytest.skip("this file system has no such names")
    make_slide("good.tif")
    words = (tmp_path / "slides", "--output", tmp_path / "out", "--engine", engine, "--slides-at-once", "2")
    assert command(*words).wait(300) == 0, (tmp_path / "said.txt").read_text()
    assert sorted(row["status"] for row in read_csv(tmp_path / "out" / "cohort.csv")) == ["done", "done"]


def test_a_slide_whose_name_is_too_long_fails_alone(make_slide, cohort, tmp_path):
    long = "n" * 249
    make_slide(f"{long}.tif"), make_slide("HE.tif")
    for _ in range(2):
        run = cohort()
        assert (run.done, run.failed) == (1, 1)
    said = {row["results"]: row["message"] for row in read_csv(tmp_path / "out" / "cohort.csv")}
    assert "has 249 bytes, and at most 246 fit here; give the slide a shorter name" in said[long]
