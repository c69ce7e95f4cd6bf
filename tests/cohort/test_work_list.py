import csv
import errno
import io
import os
import re
import shutil

import pytest

from lightmuseg.cohort import slide_table as manifest
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
    ("content", "named"),
    [
        (b"path\nx", ["list.csv", "no column 'slide' but path"]),
        (b"", ["list.csv", "no column 'slide' but none"]),
        (b"slide,slide\na,b", ["list.csv", "two columns 'slide'"]),
        (b"slide;a,slide;b,slide", ["list.csv"]),
        (b"\xff\xfes\0l", ["list.csv"]),
        (b"slide\n" + b"x" * 600, ["list.csv", "MB", "split"]),
    ],
)
def test_a_file_that_is_no_table_ends_in_one_line(folder, tmp_path, monkeypatch, content, named):
    monkeypatch.setattr(manifest, "MAX_BYTES", 500)
    path = folder / "list.csv"
    path.write_bytes(content)
    with refused(*named):
        work_list([str(path)], tmp_path / "out")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("nowhere.svs", ["line 3: nowhere.svs", "no such file", "delete the line"]),
        ("C:\\p1\\HE.svs", ["line 3: C:\\p1\\HE.svs", "no such file"]),
        ("x" * 5000, ["line 3", "no such file"]),
        ("p2/HE.svs,fine", ["line 3: mpp fine", "no number"]),
        ("p2/HE.svs,25", ["line 3", "25.0 um per pixel is outside"]),
        ("p2/HE.svs,nan", ["line 3", "nan um per pixel"]),
        ('p2/HE.svs,"1.234,5"', ["line 3: mpp 1.234,5", "no number"]),
        ("p2/HE.svs,0,25", ["line 3", "more cells"]),
        (".", ["folder that the table is in", "name a slide"]),
        ("..", ["folder that the table is in", "name a slide"]),
        (",0.5", ["line 3: names no slide"]),
        ("p1/.hidden.svs", [".hidden.svs", "rename it"]),
        ("\x00", ["line 3"]),
        ('"p2/HE.svs', ["line 3", "quotes"]),
        ('"p2/HE.svs"x', ["line 3"]),
    ],
)
def test_a_wrong_row_of_a_manifest_is_a_failed_slide_and_the_others_stand(folder, tmp_path, line, named):
    path = folder / "list.csv"
    path.write_text(f'slide,mpp\np1/HE.svs,0.5\n{line}\n"p1/HE 2.TIF",\n')
    slides = work_list([str(path)], tmp_path / "out")
    assert [slide.name for slide in slides if not slide.fault] == ["p1/HE", "p1/HE 2"]
    (fault,) = (slide.fault for slide in slides if slide.fault)
    assert [word for word in named if word not in fault] == []
    assert "\n" not in fault


def test_a_slide_that_a_manifest_names_twice_is_taken_once_or_not_at_all(folder, tmp_path):
    path = folder / "list.csv"
    path.write_text("slide,mpp\np1/HE.svs,0.5\np2/HE.svs,0.5\n./p1//HE.svs,0.50\np1/../p2/HE.svs,0.25\n")
    one, other = sorted(work_list([str(path)], tmp_path / "out"), key=lambda slide: slide.name)
    assert (one.name, one.mpp, one.fault) == ("p1/HE", 0.5, "")
    assert (other.name, "line 3, line 5, which differ" in other.fault) == ("p2/HE", True)


TABLE = [
    ["Slide ", "MPP", "patient"],
    ["p1/HE.svs", "0.25", "M\u00fcller, A"],
    ["p1/HE 2.TIF", "", "P;2"],
    ["", "", ""],
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1"])
@pytest.mark.parametrize(
    ("delimiter", "ending"), [(",", ".csv"), (";", ".CSV"), ("\t", ".tsv"), ("\t", ".txt"), ("|", ".csv")]
)
@pytest.mark.parametrize("said", [False, True])
def test_tables_are_read_as_spreadsheets_write_them(folder, tmp_path, encoding, delimiter, ending, said):
    text = io.StringIO(newline="")
    table = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL if said else csv.QUOTE_MINIMAL)
    rows = [[cell.replace(".25", ",25") for cell in row] for row in TABLE] if delimiter != "," else TABLE
    table.writerows(rows)
    path = folder / f"list{ending}"
    path.write_bytes((f"sep={delimiter}\r\n" * said + text.getvalue() + delimiter * 3 + "\r\n\r\n").encode(encoding))
    slides = work_list([str(path)], tmp_path / "out")
    assert [(slide.path, slide.name, slide.mpp, slide.patient, slide.fault) for slide in slides] == [
        (folder / "p1" / "HE.svs", "p1/HE", 0.25, "M\u00fcller, A", ""),
        (folder / "p1" / "HE 2.TIF", "p1/HE 2", None, "P;2", ""),
    ]


def test_lines_are_counted_as_an_editor_counts_them(folder, tmp_path):
    (folder / "list.csv").write_bytes(b'sep=;\r\n\r\nslide;stain\r\np1/HE.svs;"two\r\nlines"\r\nnowhere;\r\n')
    faults = [slide.fault for slide in work_list([str(folder / "list.csv")], tmp_path / "out") if slide.fault]
    assert ["list.csv, line 6: nowhere" in fault for fault in faults] == [True]


def test_a_table_of_one_column_splits_no_name(folder, tmp_path):
    (folder / "a, b; c.svs").write_bytes(b"x")
    (folder / "list.csv").write_text("slide\na, b; c.svs\n")
    assert names([folder / "list.csv"], tmp_path / "out") == ["a, b; c"]


@pytest.mark.parametrize("line", [".\\p1\\HE.svs", "p1\\HE.svs", '"p1\\HE.svs"'])
def test_backslashes_are_slashes_of_windows(folder, tmp_path, line):
    (folder / "list.csv").write_text(f"slide\n{line}\n")
    assert names([folder / "list.csv"], tmp_path / "out") == ["p1/HE"]


@pytest.mark.skipif(os.name == "nt", reason="a name has no backslash there")
def test_a_backslash_that_may_mean_two_files_is_refused(folder, tmp_path):
    (folder / "list.csv").write_text("slide\np1\\HE.svs\n")
    (folder / "p1\\HE.svs").write_bytes(b"x")
    (slide,) = work_list([str(folder / "list.csv")], tmp_path / "out")
    assert "names two files" in slide.fault


def test_slides_beside_and_above_the_manifest_are_called_as_they_lie(folder, tmp_path):
    (folder.parent / "lists").mkdir()
    path = folder.parent / "lists" / "list.csv"
    path.write_text(f"slide\n../slides/p1/HE.svs\n{folder / 'p2' / 'HE.svs'}\n")
    slides = work_list([str(path)], tmp_path / "out")
    assert [(slide.name, slide.path, slide.fault) for slide in slides] == [
        ("slides/p2/HE", folder / "p2" / "HE.svs", ""), ("slides/p1/HE", folder / "p1" / "HE.svs", ""),
    ]  # fmt: skip
    (folder / "list.csv").write_text(f"slide\n{folder / 'p2' / 'HE.svs'}\n")
    assert names([folder / "list.csv"], tmp_path / "out") == ["p2/HE"]


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
@pytest.mark.parametrize("name", ["Pr\u00e4p 1.TIF".encode(), b"Pr\xe4p 1.TIF", "Pra\u0308p 1.TIF".encode()])
def test_a_name_with_an_accent_is_found_however_disk_and_table_write_it(folder, tmp_path, encoding, name):
    try:
        (folder / os.fsdecode(name)).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    (folder / "list.csv").write_bytes("slide,mpp\r\nPr\u00e4p 1.TIF,0.25\r\n".encode(encoding))
    (slide,) = work_list([str(folder / "list.csv")], tmp_path / "out")
    assert (os.fsencode(slide.path.name), slide.fault) == (name, "")


@pytest.mark.parametrize("case", ["backslash", "blank_rows", "cp1252", "outside", "semicolon", "sep_line"])
def test_tables_of_users_give_their_slide(data, tmp_path, case):
    source = data / "slide_cases" / f"manifest_{case}.csv"
    if not source.exists():
        pytest.skip("not there")
    # where a table names a file that lies elsewhere, it is this one
    content = re.sub(rb"/\S+\.tif", lambda _: os.fsencode(tmp_path / "a.tif"), source.read_bytes())
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.csv").write_bytes(content)
    for path in (tmp_path / "in" / "a.tif", tmp_path / "in" / "Pr\u00e4p 1.TIF", tmp_path / "a.tif"):
        path.write_bytes(b"x")
    (slide,) = work_list([str(tmp_path / "in" / "list.csv")], tmp_path / "out")
    assert slide.fault == ""
    assert slide.path.is_file()
    assert slide.mpp == (None if case in ("backslash", "outside") else 0.25)


@pytest.mark.parametrize(
    ("extra", "failed", "words"),
    [
        ("p1/HE.tif", ["p1/HE.svs", "p1/HE.tif"], ["same folder of results, p1/HE"]),
        ("p1.svs", ["p1.svs"], ["inside its own"]),
        ("cohort.csv.svs", ["cohort.csv.svs"], ["rename it"]),
    ],
)
def test_slides_that_would_share_a_folder_of_results_fail_and_the_others_go_on(folder, tmp_path, extra, failed, words):
    before = {slide.path for slide in work_list([str(folder)], tmp_path / "out")}
    (folder / extra).write_bytes(b"x")
    slides = work_list([str(folder)], tmp_path / "out")
    faults = {slide.path: slide.fault for slide in slides if slide.fault}
    assert sorted(faults) == [folder / name for name in failed]
    assert all(str(path) in fault and word in fault for path, fault in faults.items() for word in words)
    assert {slide.path for slide in slides if not slide.fault} == before - set(faults)


@pytest.mark.parametrize("source", [".", "**/*.svs"])
def test_what_cannot_be_looked_into_is_a_failed_slide(folder, tmp_path, monkeypatch, source):
    def scandir(path, scan=os.scandir):
        if os.fspath(path) == str(folder / "p1"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    expected = {"p2/HE"} if source != "." else {"p2/HE", "p2/deep/er/x", "p3/one"}
    monkeypatch.setattr(os, "scandir", scandir)
    (folder / "itself.svs").symlink_to("itself.svs")
    slides = work_list([str(folder / source)], tmp_path / "out")
    assert {slide.name for slide in slides if not slide.fault} - {"itself"} == expected
    assert [slide.fault for slide in slides if slide.path == folder / "p1"] == [
        f"{folder / 'p1'}: cannot be looked into (Permission denied); allow it, or move it away."
    ]


def test_a_source_that_is_too_long_for_a_path_is_refused(tmp_path):
    with pytest.raises((InputError, OSError)):
        work_list(["x" * 5000 + ".csv"], tmp_path / "out")


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


def test_a_source_that_is_not_there_among_others_is_a_failed_slide(folder, tmp_path):
    (tmp_path / "dangling.svs").symlink_to(tmp_path / "nowhere.svs")
    others = [str(tmp_path / "dangling.svs"), str(tmp_path / "gone.svs"), str(tmp_path / f"{'x' * 300}.svs")]
    slides = work_list([str(folder / "p1"), *others], tmp_path / "out")
    assert sorted(slide.name for slide in slides if not slide.fault) == ["HE", "HE 2"]
    faults = {str(slide.path): slide.fault for slide in slides if slide.fault}
    assert faults.keys() == set(others)
    assert all(fault.startswith(f"{path}: no such") for path, fault in faults.items())


def test_a_cell_that_is_too_long_is_one_fault(folder, tmp_path):
    path = folder / "list.csv"
    long = "x" * (csv.field_size_limit() + 10)
    path.write_text(f"slide,{long}\np1/HE.svs,1\n")
    with refused("list.csv", "field larger"):
        work_list([str(path)], tmp_path / "out")
    path.write_text(f"slide,mpp\np1/HE.svs,\n{long},0.5\n")
    assert [bool(slide.fault) for slide in work_list([str(path)], tmp_path / "out")] == [False, True]
