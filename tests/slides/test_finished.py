"""Results that are whole, broken, of a slide that changed; and what is done about it."""

import errno
import json
import os
import re
import shutil

import pytest
from stand_in_networks import Dark

from lightmuseg.cli.verify_command import verify
from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.slides import Options, segment_slides
from lightmuseg.slides.finished import fault_of, folders_of_results, is_done, name_aside
from lightmuseg.text_files import read_csv, write_csv


def stop(batch):
    if batch == 5:
        raise KeyboardInterrupt


def segment(slide, output, at=lambda batch: None, **options):
    options = {"tissue_mask": False, "batch_size": 3, **options}
    return segment_slides([slide], Dark(128, at), Options(output_dir=output, class_names=("tumor",), **options), {})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "run.json"}


def record_of(folder):
    return json.loads((folder / "run.json").read_text())


def refused(*words):
    return pytest.raises(InputError, match=r"\A[^\n]*" + "[^\n]*".join(map(re.escape, words)) + r"[^\n]*\Z")


@pytest.fixture
def slide(tmp_path, write_plain_slide):
    return write_plain_slide(tmp_path / "A.tif", side=500)


@pytest.fixture
def out(slide, tmp_path):
    segment(slide, tmp_path / "out", probabilities=True)
    return tmp_path / "out"


def test_the_record_lists_size_and_hash_of_every_file(out):
    listed = record_of(out / "A")["files"]
    there = [path for path in (out / "A").iterdir() if path.is_file() and path.name != "run.json"]
    arrays = listed.pop("probabilities.zarr")
    assert listed == {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in there}
    # of very many files one entry, so that a record stays small
    chunks = [path for path in (out / "A" / "probabilities.zarr").rglob("*") if path.is_file()]
    assert len(chunks) > 2
    assert arrays["bytes"] == sum(path.stat().st_size for path in chunks)
    assert is_done(out / "A")
    assert fault_of(out / "A", hashes=True) is None
    content = chunks[-1].read_bytes()
    chunks[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert is_done(out / "A")
    assert fault_of(out / "A", hashes=True) == "probabilities.zarr has other bytes"
    chunks[-1].write_bytes(content)
    chunks[-1].rename(chunks[-1].with_name("other"))
    assert fault_of(out / "A", hashes=True) == "probabilities.zarr has other bytes"


def test_nothing_of_a_run_is_seen_before_it_is_on_the_disk(slide, tmp_path, renames):
    segment(slide, tmp_path / "out", probabilities=True)
    names = renames()
    assert names[-2:] == ["A", "report.csv"]
    # the rows too, from which an interrupted run goes on
    assert {"options.json", "000000.npz", "run.json", "measurements.csv"} <= set(names)


def emptied(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


BREAKS = {
    "all files empty": (emptied, "run.json is damaged"),
    "one file empty": (lambda folder: (folder / "classes.tif").write_bytes(b""), "classes.tif has 0 bytes, not"),
    "one file cut": (lambda folder: os.truncate(folder / "overlay.png", 100), "overlay.png has 100 bytes, not"),
    "one file gone": (lambda folder: (folder / "regions.geojson").unlink(), "regions.geojson is missing"),
    "record cut": (lambda folder: os.truncate(folder / "run.json", 100), "run.json is damaged"),
    "chunks gone": (lambda folder: shutil.rmtree(folder / "probabilities.zarr" / "0"), "zarr has .* bytes, not"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_results_are_done_again_and_kept_aside(kind, slide, out, caplog):
    damage, said = BREAKS[kind]
    before = contents(out / "A")
    damage(out / "A")
    broken = contents(out / "A")
    assert not is_done(out / "A")
    assert re.search(said, fault_of(out / "A"))
    (row,) = segment(slide, out, resume=True, probabilities=True)
    assert row["status"] == "done"
    assert re.search(said, row["message"])
    assert ".A.kept-1" in caplog.messages[0] == row["message"] == record_of(out / "A")["notes"][0]
    assert contents(out / "A") == before
    assert contents(out / ".A.kept-1") == broken
    # and then it is done
    assert segment(slide, out, resume=True, probabilities=True)[0]["message"] == "was done before"
    assert len(list(out.glob(".A.kept-*"))) == 1


def test_results_that_are_there_are_never_replaced_unasked(slide, out):
    (out / "A" / "classes.tif").write_bytes(b"")
    with refused(str(out / "A"), "is there already"):
        segment(slide, out)
    shutil.rmtree(out / "A")
    (out / "A").mkdir()
    (out / "A" / "mine.txt").write_text("mine")
    with refused(str(out / "A"), "is there already"):
        segment(slide, out, resume=True)
    assert (out / "A" / "mine.txt").read_text() == "mine"


def test_a_folder_that_holds_the_slide_is_not_set_aside(tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "run.json").touch()
    with refused("series", "holds no results"):
        name_aside(tmp_path / "series", tmp_path / "series")
    with refused("series", "holds no results"):
        name_aside(tmp_path / "series", tmp_path / "series" / "slide.tif")


def test_results_of_older_versions_are_done_where_no_file_is_empty(slide, out):
    record = record_of(out / "A")
    for name in ("files", "slide_identity", "notes"):
        del record[name]
    (out / "A" / "run.json").write_text(json.dumps(record))
    assert segment(slide, out, resume=True, changed=True)[0]["message"] == "was done before"
    (out / "A" / "overlay.png").write_bytes(b"")
    assert "overlay.png is empty" in segment(slide, out, resume=True)[0]["message"]


@pytest.mark.parametrize("name", ["measurements.csv", "classes.tif"])
def test_results_of_older_versions_without_what_was_always_there_are_broken(slide, out, name):
    record = record_of(out / "A")
    del record["files"]
    (out / "A" / "run.json").write_text(json.dumps(record))
    assert is_done(out / "A")
    (out / "A" / name).unlink()
    assert fault_of(out / "A") == f"{name} is missing"


def test_a_training_of_the_slides_name_is_neither_done_nor_put_aside(slide, tmp_path):
    (tmp_path / "out" / "A").mkdir(parents=True)
    (tmp_path / "out" / "A" / "run.json").write_text('{"best": 0.8}')
    with refused(str(tmp_path / "out" / "A"), "is there already"):
        segment(slide, tmp_path / "out", resume=True)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["A"]


def test_results_stay_in_their_place_until_new_ones_are_whole(slide, out, write_plain_slide):
    before = contents(out / "A")
    swapped(slide, write_plain_slide)
    again = {"resume": True, "changed": True, "probabilities": True}
    with pytest.raises(KeyboardInterrupt):
        segment(slide, out, stop, **again)
    assert contents(out / "A") == before
    rows = list((out / ".A.partial" / "rows").glob("*.npz"))
    assert rows
    # who asks for less takes nothing away
    assert "changed since" in segment(slide, out, resume=True)[0]["message"]
    assert list((out / ".A.partial" / "rows").glob("*.npz")) == rows
    batches = []
    (row,) = segment(slide, out, batches.append, **again)
    assert ".A.kept-1" in row["message"] == record_of(out / "A")["notes"][0]
    assert contents(out / ".A.kept-1") == before
    assert fault_of(out / "A", hashes=True) is None
    assert sorted(path.name for path in out.iterdir()) == [".A.kept-1", "A", "report.csv"]


def test_results_come_back_where_new_ones_cannot_be_shown(slide, out, write_plain_slide, monkeypatch):
    before = contents(out / "A")
    swapped(slide, write_plain_slide)

    def full(temporary, path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("lightmuseg.slides.finished.show", full)
    with pytest.raises(InputError, match="Input/output error"):
        segment(slide, out, resume=True, changed=True)
    assert contents(out / "A") == before
    assert not list(out.glob(".A.kept*"))


def test_results_stay_where_the_slide_that_replaced_theirs_cannot_be_read(slide, out):
    before = contents(out / "A")
    slide.write_bytes(b"II*\0nothing")
    with pytest.raises(InputError):
        segment(slide, out, resume=True, changed=True)
    assert contents(out / "A") == before
    assert not list(out.glob(".A*"))


def test_verify_reads_every_byte_and_names_each_broken_result(slide, out, write_plain_slide, capsys):
    segment(write_plain_slide(slide.with_name("B.tif"), 1, 500), out)
    segment(write_plain_slide(slide.with_name("C.tif"), 2, 500), out)
    # a training is no result of a slide
    (out / "training").mkdir()
    (out / "training" / "run.json").write_text("{}")
    verify(str(out))
    assert capsys.readouterr().out == f"{out}: 3 results are whole\n"
    content = bytearray((out / "B" / "classes.tif").read_bytes())
    content[-1] ^= 1
    (out / "B" / "classes.tif").write_bytes(content)
    emptied(out / "C")
    # sizes alone do not show it
    assert is_done(out / "B")
    with refused("2 of 3 results are broken", "--resume"):
        verify(str(out))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{out / 'B'}: classes.tif has other bytes", f"{out / 'C'}: run.json is damaged"]
    with refused("1 of 1 results are broken"):
        verify(str(out / "B"))
    verify(str(out / "A"))
    with refused("holds no results"):
        verify(str(out / "nowhere"))
    (out / "C" / "run.json").unlink()
    assert folders_of_results(out) == [out / "A", out / "B", out / "C"]


def test_verify_misses_what_a_table_says_is_done(slide, out, capsys):
    write_csv(
        out / "cohort.csv",
        [
            {"slide": "a", "results": "p1/D", "status": "done"}, {"slide": "b", "results": "p1/E", "status": "waiting"},
            {"slide": "c", "results": "../F", "status": "done"},
        ],
    )  # fmt: skip
    shutil.rmtree(out / "A")
    with refused("2 of 2 results are broken"):
        verify(str(out))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{out / 'A'}: run.json is missing", f"{out / 'p1' / 'D'}: run.json is missing"]


def test_verify_names_a_folder_that_cannot_be_looked_into(out, monkeypatch, capsys):
    walk = os.walk

    def half(root, onerror=None):
        if root == out:
            onerror(PermissionError(errno.EACCES, "Permission denied", str(out / "locked")))
        return walk(root)

    monkeypatch.setattr("lightmuseg.slides.finished.os.walk", half)
    with refused("1 folders cannot be looked into", str(out / "locked")):
        verify(str(out))
    assert f"{out / 'locked'}: cannot be looked into (Permission denied)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["../A/overlay.png", "/dev/zero", "pipe", "a\0b"])
def test_a_record_that_leads_elsewhere_is_damaged_and_nothing_else_is_read(out, name):
    record = record_of(out / "A")
    os.mkfifo(out / "A" / "pipe")
    record["files"][name] = {"bytes": 0, "sha256": "0"}
    (out / "A" / "run.json").write_text(json.dumps(record))
    assert fault_of(out / "A", hashes=True) in ("run.json is damaged", "pipe is no file")


def swapped(slide, write_plain_slide, seed=5, keep_times=False):
    """Another slide of the same size in its place."""
    state = slide.stat()
    other = write_plain_slide(slide.with_name("other.tif"), seed, 500)
    content = bytearray(slide.read_bytes())
    with open(other, "rb") as file:
        new = file.read()
    new = new[: len(content)] + bytes(len(content) - len(new[: len(content)]))
    slide.unlink()
    slide.write_bytes(new)
    if keep_times:
        os.utime(slide, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert slide.stat().st_size == state.st_size
    other.unlink()


@pytest.mark.parametrize("keep_times", [False, True])
def test_an_interrupted_run_does_not_go_on_with_another_slide(slide, tmp_path, write_plain_slide, keep_times):
    with pytest.raises(KeyboardInterrupt):
        segment(slide, tmp_path / "out", stop)
    swapped(slide, write_plain_slide, keep_times=keep_times)
    with refused(".A.partial", "another slide"):
        segment(slide, tmp_path / "out", resume=True)


def test_an_interrupted_run_goes_on_with_the_same_slide_copied_again(slide, out, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment(slide, tmp_path / "again", stop, probabilities=True)
    shutil.copyfile(slide, tmp_path / "copy")
    (tmp_path / "copy").replace(slide)
    os.utime(slide, (0, 0))
    segment(slide, tmp_path / "again", resume=True, probabilities=True)
    assert contents(tmp_path / "again" / "A") == contents(out / "A")
    assert segment(slide, out, resume=True, changed=True)[0]["message"] == "was done before"


@pytest.mark.parametrize("keep_times", [False, True])
def test_a_slide_that_changed_after_it_was_done_is_said_and_done_again_when_asked(
    slide, out, tmp_path, write_plain_slide, caplog, keep_times
):
    before = contents(out / "A")
    swapped(slide, write_plain_slide, keep_times=keep_times)
    (row,) = segment(slide, out, resume=True)
    assert "the slide changed since" in row["message"]
    assert "the slide changed since" in caplog.text
    assert "changed" in read_csv(out / "report.csv")[0]["message"]
    assert contents(out / "A") == before
    (row,) = segment(slide, out, resume=True, changed=True, probabilities=True)
    assert ".A.kept-1" in row["message"]
    assert contents(out / ".A.kept-1") == before
    segment(slide, tmp_path / "once", probabilities=True)
    assert contents(out / "A") == contents(tmp_path / "once" / "A") != before


def test_a_slide_that_changes_while_it_is_segmented_fails(slide, tmp_path):
    def change(batch):
        if batch == 2:
            with open(slide, "r+b") as file:
                # in no place that is looked at, so only the time shows it
                file.seek(slide.stat().st_size // 2)
                byte = file.read(1)
                file.seek(-1, os.SEEK_CUR)
                file.write(byte)

    with refused("A.tif", "changed while it was segmented"):
        segment(slide, tmp_path / "out", change)
    # nobody goes on from its rows
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.csv"]
