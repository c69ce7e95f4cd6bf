import csv
import hashlib
import json
import os
import re
import threading

import filelock
import pytest

import lightmuseg.cohort.agenda
from lightmuseg.cohort import segment_cohort
from lightmuseg.cohort.worker import SlideWorker
from lightmuseg.errors import InputError
from lightmuseg.record import read_csv


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


def test_a_bad_slide_is_listed_and_the_same_command_does_only_what_is_missing(cohort, slides, tmp_path, capsys):
    out = tmp_path / "out"
    run = cohort()
    assert (run.done, run.failed) == (2, 1)
    rows = table(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "p1/HE": "done", "p2/HE": "done", "p2/damaged": "failed",
    }  # fmt: skip
    assert str(slides / "p2" / "damaged.tif") in rows["p2/damaged"]["message"]
    assert "damaged.tif" in capsys.readouterr().err
    record = json.loads((out / "p2" / "HE" / "run.json").read_text())
    assert rows["p2/HE"]["tiles"] == str(record["tiles"])
    assert float(rows["p2/HE"]["seconds_segmenting"]) == record["seconds"]["segmenting"]
    measured = {row["measure"]: row["value"] for row in csv.DictReader((out / "p2/HE/measurements.csv").open())}
    assert {name: rows["p2/HE"][name] for name in measured} == measured
    assert float(measured["analysed_tissue_area"]) == pytest.approx((625 * 0.25e-3) ** 2, rel=0.01)
    moments = {path: path.stat().st_mtime_ns for path in out.rglob("run.json")}
    (slides / "p2" / "damaged.tif").write_bytes((slides / "p1" / "HE.tif").read_bytes())
    run = cohort()
    assert (run.done, run.failed) == (3, 0)
    assert {path: path.stat().st_mtime_ns for path in moments} == moments
    assert table(out)["p2/damaged"]["status"] == "done"
    assert not any(path.name.startswith(".") for path in out.rglob("*") if path.name != ".cohort")


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


def test_a_cohort_begun_by_other_options_is_not_gone_on_with(cohort, make_slide, tmp_path):
    make_slide("a.tif")
    cohort(values={"overlap": 0.25})
    make_slide("b.tif")
    with refused(str(tmp_path / "out"), "overlap 0.25, not 0.5", "the same options, or another --output"):
        cohort(values={"overlap": 0.5})
    before = (tmp_path / "out" / "cohort.csv").read_bytes()
    with refused("slide_mpp None, not 0.5"):
        cohort(values={"slide_mpp": 0.5})
    assert (tmp_path / "out" / "cohort.csv").read_bytes() == before
    assert not (tmp_path / "out" / "b").exists()
    cohort(values={"overlap": 0.25, "workers": 1})
    assert (tmp_path / "out" / "b" / "run.json").is_file()


def test_an_overrides_um_per_pixel_hold(make_slide, tmp_path, root, override):
    make_slide("HE.tif")
    segment_cohort([str(tmp_path / "slides")], tmp_path / "out", root / "bundle", override(slide_mpp=0.5))
    assert json.loads((tmp_path / "out" / "HE" / "run.json").read_text())["level0_mpp"] == 0.5


def test_a_slide_that_another_process_holds_is_looked_at_again(cohort, make_slide, tmp_path, monkeypatch):
    monkeypatch.setattr(lightmuseg.cohort.agenda, "AGAIN_S", 0.2)
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
        report = original(worker, slide)
        if report.status == "busy" and not seen and (tmp_path / "out" / "free" / "run.json").exists():
            threading.Timer(0.1, let_go).start()
        return report

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


def test_stopping_says_how_to_go_on(cohort, slides, tmp_path, monkeypatch, capsys):
    def stop(worker, slide):
        raise KeyboardInterrupt

    monkeypatch.setattr(SlideWorker, "__call__", stop)
    with pytest.raises(KeyboardInterrupt):
        cohort()
    assert f"{tmp_path / 'out'}: stopped; the same command goes on" in capsys.readouterr().err
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"waiting"}


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


def test_a_slide_whose_name_is_too_long_fails_alone(make_slide, cohort, tmp_path):
    long = "n" * 249
    make_slide(f"{long}.tif"), make_slide("HE.tif")
    for _ in range(2):
        run = cohort()
        assert (run.done, run.failed) == (1, 1)
    said = {row["results"]: row["message"] for row in read_csv(tmp_path / "out" / "cohort.csv")}
    assert "has 249 bytes, and at most 246 fit here; give the slide a shorter name" in said[long]
