import os
import re
import shutil

import pytest

from lightmuseg.cohort.work_list import shard_of, work_list
from lightmuseg.errors import InputError


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


@pytest.fixture
def folder(tmp_path):
    """Files of different sizes, slides and others."""
    sizes = {
        "p1/HE.svs": 30, "p1/HE 2.TIF": 10, "p2/HE.svs": 40, "p2/deep/er/x.ndpi": 20, "p2/thumbnail.png": 99,
        "p2/notes.txt": 99, ".trash/old.svs": 99, "p1/.hidden.svs": 99, "p3/one.dcm": 5,
    }  # fmt: skip
    for name, size in sizes.items():
        (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "slides" / name).write_bytes(bytes(size))
    return tmp_path / "slides"


def names(sources, output):
    return [slide.name for slide in work_list([str(source) for source in sources], output)]


def test_a_folder_gives_its_slides_once_the_largest_first(folder, tmp_path):
    assert names([folder], tmp_path / "out") == ["p2/HE", "p1/HE", "p2/deep/er/x", "p1/HE 2", "p3/one"]
    assert names([folder, folder / "p1", folder / "**" / "*.svs"], tmp_path / "out") == names([folder], tmp_path)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/HE.svs", ["p2/HE", "p1/HE"]),
        ("p2/**/*.ndpi", ["deep/er/x"]),
        ("**/*.png", ["p2/thumbnail"]),
        ("p?/one.dcm", ["p3/one"]),
    ],
)
def test_a_glob_gives_what_it_means(folder, tmp_path, pattern, expected):
    assert names([folder / pattern], tmp_path / "out") == expected


def test_results_and_the_cohorts_own_folder_are_no_slides(folder, tmp_path):
    for name in ("out/p1/HE", "p4/HE"):
        (folder / name).mkdir(parents=True)
        for file in ("run.json", "measurements.csv", "classes.tif"):
            (folder / name / file).write_bytes(b"x")
    (folder / "out" / "p9.tif").write_bytes(b"x")
    assert len(names([folder], folder / "out")) == 5
    # where slides and results are to stand beside each other
    assert "p1/HE" in names([folder], folder)


def test_links_to_folders_above_end_nothing_and_repeat_nothing(folder, tmp_path):
    before = names([folder], tmp_path / "out")
    (folder / "a loop").symlink_to(folder)
    (folder / "p2" / "deep" / "loop").symlink_to(folder / "p2")
    assert names([folder], tmp_path / "out") == before
    shutil.move(folder / "p1", tmp_path / "store")
    (folder / "p1").symlink_to(tmp_path / "store")
    assert names([folder], tmp_path / "out") == before
    assert names([folder / "**" / "*.svs"], tmp_path / "out") == ["p2/HE", "p1/HE"]


def test_a_link_to_nothing_is_a_slide_and_a_pipe_is_none(folder, tmp_path):
    (folder / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    os.mkfifo(folder / "pipe.svs")
    assert "gone" in names([folder], tmp_path / "out")
    assert "pipe" not in names([folder], tmp_path / "out")


def test_files_of_one_dicom_series_are_one_slide(data, tmp_path):
    import pydicom

    source = data / "slides" / "highdicom_sm_image.dcm"
    for folder, uids in (("one", ["1.2"] * 2), ("each", ["1.2", "1.3"]), ("mixed", ["1.2", "1.2", "1.3"])):
        for number, uid in enumerate(uids):
            header = pydicom.dcmread(source)
            header.SeriesInstanceUID = uid
            (tmp_path / folder / "series").mkdir(parents=True, exist_ok=True)
            header.save_as(tmp_path / folder / "series" / f"{number}.dcm")
    assert names([tmp_path / "one"], tmp_path / "out") == ["series"]
    assert names([tmp_path / "one" / "series"], tmp_path / "out") == ["series"]
    assert sorted(names([tmp_path / "each"], tmp_path / "out")) == ["series/0", "series/1"]
    assert sorted(names([tmp_path / "mixed"], tmp_path / "out")) == ["series/0", "series/2"]


def test_a_folder_gives_each_slide_in_dicom_once(data, tmp_path):
    """Whatever its files are called and lies beside them; what cannot be read is a slide that fails."""
    import pydicom

    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("a_glass.dcm", "b_tissue.dcm"):
        shutil.copy(data / "slide_cases" / "dicom_two_slides" / name, folder / name.removesuffix(".dcm"))
    assert sorted(names([folder], tmp_path / "out")) == ["a_glass", "b_tissue"]
    for name, changes in {
        "1.2.3.4": {"SOPInstanceUID": "1.2.4", "TotalPixelMatrixColumns": 256},
        "1.2.3.5": {"SOPInstanceUID": "1.2.5", "ImageType": ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]},
        "seg.dcm": {"SOPInstanceUID": "1.2.6", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
        "DICOMDIR": {"SOPInstanceUID": "1.2.7", "SOPClassUID": "1.2.840.10008.1.3.10"},
        "1.2.3.40": {"SOPInstanceUID": "1.2.8", "SeriesInstanceUID": "1.2.9"},
        "1.2.3.41": {"SOPInstanceUID": "1.2.8", "SeriesInstanceUID": "1.2.10"},
    }.items():
        header = pydicom.dcmread(folder / "b_tissue")
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID
        header.save_as(folder / name)
    (folder / "broken.dcm").write_bytes(b"none")
    (folder / "cut").write_bytes((folder / "b_tissue").read_bytes()[:600])
    expected = ["1.2.3.40", "1.2.3.41", "a_glass", "b_tissue", "broken", "cut"]
    assert sorted(names([folder], tmp_path / "out")) == expected
    assert sorted(names([folder / "*"], tmp_path / "out")) == expected
    # as a shell writes out FOLDER/*
    named = [folder / name for name in ("1.2.3.4", "b_tissue", "1.2.3.40")]
    assert sorted(names(named, tmp_path / "out")) == ["1.2.3.4", "1.2.3.40"]


def test_a_folder_of_one_slide_in_dicom_beside_others_is_its_file(data, tmp_path, folder):
    source = data / "slide_cases" / "dicom_two_slides" / "b_tissue.dcm"
    for name in ("p1/level.dcm", "p5/level.dcm", "p5/deeper/level.dcm", "p6/level.dcm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
        shutil.copy(source, (folder / name).with_name("copy.dcm"))
    found = names([folder], tmp_path / "out")
    assert {name for name in found if name[:2] in ("p1", "p5", "p6")} == {
        "p1/HE", "p1/HE 2", "p1/copy", "p5/copy", "p5/deeper", "p6"
    }  # fmt: skip
    assert names([folder / "p6" / "level.*"], tmp_path / "out") == ["p6"]


def test_a_manifest_says_what_is_known_of_each_slide(folder, tmp_path):
    path = folder / "list.csv"
    path.write_text(
        "\ufeffStain, slide ,mpp,patient,scanner\nH&E,p1/HE.svs,0.5,A 1,x\n,./p1/../p2/HE.svs,,,\n", encoding="utf-8"
    )
    slides = work_list([str(folder), str(path)], tmp_path / "out")
    assert len(slides) == 5
    (one,) = (slide for slide in slides if slide.name == "p1/HE")
    assert (one.mpp, one.patient, one.stain, one.path) == (0.5, "A 1", "H&E", folder / "p1" / "HE.svs")
    (other,) = (slide for slide in slides if slide.name == "p2/HE")
    assert (other.mpp, other.patient, other.stain) == (None, "", "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("path\nx", ["list.csv", "no column 'slide' but path"]),
        ("", ["list.csv", "no column 'slide' but none"]),
        ("slide\nnowhere.svs", ["line 2: nowhere.svs", "no such file"]),
        ("slide\np1/HE.svs\np2/HE.svs\n./p1//HE.svs", ["line 4", "line 2 already"]),
        ("slide,mpp\np1/HE.svs,fine", ["line 2: mpp fine", "no number"]),
        ("slide,mpp\np1/HE.svs,25", ["line 2", "25.0 um per pixel is outside"]),
        ("slide,mpp\np1/HE.svs,nan", ["line 2", "nan um per pixel"]),
        ("slide\n../outside.svs", ["line 2: ../outside.svs is not below"]),
        ("slide\n/etc/passwd", ["line 2: /etc/passwd is not below"]),
        ("slide\np1/../../outside.svs", ["line 2", "is not below"]),
        ("slide\n.", ["line 2: . is not below"]),
        ("slide,mpp\n,0.5", ["line 2: names no slide"]),
        ("slide\np1/.hidden.svs", [".hidden.svs", "rename it"]),
        ("slide\n\x00", ["list.csv"]),
        ("slide\nB\u00e4r.svs", ["list.csv", "no CSV file in UTF-8"]),
    ],
)
def test_a_manifest_that_cannot_be_ends_in_one_line(folder, tmp_path, text, named):
    (tmp_path / "outside.svs").write_bytes(b"x")
    path = folder / "list.csv"
    path.write_text(text, encoding="latin-1")
    with refused(*named):
        work_list([str(path)], tmp_path / "out")


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ("p1/HE.tif", ["p1/HE.tif", "same folder of results, p1/HE", "p1/HE.svs"]),
        ("p1.svs", ["p1/HE", "inside those of", "p1.svs"]),
        ("cohort.csv.svs", ["cohort.csv.svs", "rename it"]),
    ],
)
def test_slides_that_would_share_a_folder_of_results_are_refused(folder, tmp_path, extra, named):
    (folder / extra).write_bytes(b"x")
    with pytest.raises(InputError) as refusal:
        work_list([str(folder)], tmp_path / "out")
    assert [word for word in named if word not in str(refusal.value)] == []
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("source", "named"),
    [("nowhere", "no such folder"), ("nowhere/*.svs", "no folder"), ("slides/*.mrxs", "no slide is there")],
)
def test_a_source_without_slides_is_refused(folder, tmp_path, monkeypatch, source, named):
    monkeypatch.chdir(tmp_path)
    with refused(source, named):
        work_list([source], tmp_path / "out")


def test_slides_beside_the_command_are_found(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder / "p1")
    assert names(["."], tmp_path / "out") == ["HE", "HE 2"] == names(["HE.svs", "HE 2.TIF"], tmp_path / "out")
    assert names(["*.svs"], tmp_path / "out") == ["HE"]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "1/0", "-1/3", "1/3/5", "\u00b2/3", "/"])
def test_a_shard_that_cannot_be_is_refused(shard):
    with refused(f"--shard {shard}", "1/4 to 4/4"):
        shard_of([], shard)


def test_shards_are_the_list_once():
    parts = [shard_of(range(10), f"{n}/4") for n in range(1, 5)]
    assert sorted(number for part in parts for number in part) == list(range(10))
    assert [part[0] for part in parts] == [0, 1, 2, 3]
