import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from lightmuseg import files
from lightmuseg.files import LEFT_OVER_S, processes_here, read_at, remove_left_over, show, whole_folder, write_whole
from lightmuseg.text_files import write_csv, write_json


def test_no_file_is_seen_before_it_is_on_the_disk(tmp_path, renames):
    write_json(tmp_path / "a.json", {})
    write_csv(tmp_path / "new" / "b.csv", [{"a": 1}])
    assert renames() == ["a.json", "b.csv"]
    # the new folder's name too
    assert ("sync", tmp_path.stat().st_ino) in renames.calls


def test_no_folder_is_seen_before_all_in_it_is_on_the_disk(tmp_path, renames):
    with whole_folder(tmp_path / "dataset", 1000) as folder:
        (folder / "images").mkdir()
        for number in range(20):
            (folder / "images" / f"{number}.png").write_bytes(b"x")
    assert renames() == ["dataset"]
    assert len(list((tmp_path / "dataset" / "images").iterdir())) == 20


def test_what_the_disk_does_not_take_is_not_seen(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"old")

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error.*a"):
        write_whole(tmp_path / "a", lambda temporary: temporary.write_bytes(b"new"))
    assert (tmp_path / "a").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_synced_is_no_fault(tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    (tmp_path / "a").mkdir()
    show(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").is_dir()


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be asked for there")
def test_temporary_files_of_the_dead_are_removed_and_those_of_the_living_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_tidied", set())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here, elsewhere = processes_here(), "0" * 6
    dead = tmp_path / f".{ended.pid}-{here}00000000.partial.a.csv"
    old = tmp_path / f".{ended.pid}-{elsewhere}00000000.partial.a.csv"
    kept = [
        tmp_path / f".{os.getpid()}-{here}00000000.partial.a.csv",
        tmp_path / f".{ended.pid}-{elsewhere}00000001.partial.a.csv",
        tmp_path / ".a.partial",
        tmp_path / f"{ended.pid}-{here}00000000.partial.a.csv",
    ]
    for path in (dead, old, *kept):
        path.write_bytes(b"x")
    then = time.time() - LEFT_OVER_S - 60
    os.utime(old, (then, then))
    write_whole(tmp_path / "a.csv", lambda temporary: temporary.write_bytes(b"new"))
    assert sorted(tmp_path.iterdir()) == sorted([*kept, tmp_path / "a.csv"])
    # a folder is looked through once
    dead.write_bytes(b"x")
    remove_left_over(tmp_path)
    assert dead.exists()


def test_threads_read_their_own_places_without_pread(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread", raising=False)
    content = os.urandom(100_000)
    (tmp_path / "a").write_bytes(content)
    wrong = []
    with open(tmp_path / "a", "rb") as file:

        def read(start):
            wrong.extend(n for n in range(start, 90_000, 997) if read_at(file.fileno(), 100, n) != content[n : n + 100])

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_at(file.fileno(), 100, 99_990) == content[-10:]
    assert wrong == []
