import errno
import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from lightmuseg import files
from lightmuseg.errors import InputError
from lightmuseg.files import (
    LEFT_OVER_S,
    machine_id,
    read_at,
    remove_left_over,
    require_space,
    show,
    whole_folder,
    write_whole,
)
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


def test_processes_that_write_a_folder_at_once_do_not_mix(tmp_path):
    def write_slowly():
        with whole_folder(tmp_path / "dataset", 1000) as slow:
            (slow / "a").touch()
            with whole_folder(tmp_path / "dataset", 1000) as fast:
                (fast / "b").touch()
            (slow / "c").touch()

    with pytest.raises(InputError, match="dataset: another process wrote it"):
        write_slowly()
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


def test_what_a_killed_process_wrote_is_no_part_of_the_next_folder(tmp_path):
    kill = (
        "import os; from lightmuseg.files import *; folder = whole_folder(Path('dataset'), 9); "
        "folder.__enter__().joinpath('a').touch(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", kill], cwd=tmp_path, check=False).returncode == 9
    assert not (tmp_path / "dataset").exists()
    assert len(list(tmp_path.iterdir())) == 1
    with whole_folder(tmp_path / "dataset", 1000) as folder:
        (folder / "b").touch()
    assert [path.name for path in (tmp_path / "dataset").iterdir()] == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]


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
    here, elsewhere = machine_id(), "0" * 6
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


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB of its own, and a call that makes it read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root on Linux")
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    yield folder, lambda: subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_whole_makes_the_folder_and_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "x.bin"
    write_whole(path, lambda temporary: temporary.write_bytes(b"new"))
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["x.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_write_whole_leaves_the_former_file_and_nothing_else_on_an_exception(tmp_path, error):
    path = tmp_path / "x.bin"
    path.write_bytes(b"old")

    def write(temporary):
        temporary.write_bytes(b"ha")
        raise error

    with pytest.raises(error):
        write_whole(path, write)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["x.bin"]


def test_write_whole_shows_the_former_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"old")
    seen = []

    def write(temporary):
        assert temporary.parent == path.parent
        assert temporary.name.endswith("x.nii.gz")
        temporary.write_bytes(b"new")
        seen.append(path.read_bytes())

    with open(path, "rb") as reader:
        write_whole(path, write)
        assert reader.read() == b"old"
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["x.nii.gz"]


def test_require_space_makes_the_folder_and_leaves_it_empty(tmp_path):
    require_space(tmp_path / "a" / "b", 1 << 16)
    assert names(tmp_path / "a" / "b") == []


def test_require_space_refuses_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/out: cannot write 1 MB"):
        require_space(tmp_path / "file" / "out", 1_000_000)


def test_require_space_refuses_a_file_in_the_folders_place(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="out"):
        require_space(tmp_path / "out", 1)


def test_require_space_refuses_a_full_disk(small_disk):
    folder, _ = small_disk
    require_space(folder, 500_000)
    with pytest.raises(InputError, match="cannot write 2 MB there .No space left on device"):
        require_space(folder, 2_000_000)
    assert names(folder) == []


def test_require_space_refuses_a_read_only_disk(small_disk):
    folder, make_read_only = small_disk
    make_read_only()
    with pytest.raises(InputError, match="Read-only file system"):
        require_space(folder, 1)


def test_write_whole_leaves_the_former_file_on_a_full_disk(small_disk):
    folder, _ = small_disk
    write_whole(folder / "x.bin", lambda temporary: temporary.write_bytes(b"old"))
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(folder / "x.bin", lambda temporary: temporary.write_bytes(bytes(2_000_000)))
    assert names(folder) == ["x.bin"]
    assert (folder / "x.bin").read_bytes() == b"old"


def test_write_whole_names_the_file_that_a_full_disk_cannot_take(tmp_path):
    def write(temporary):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left on device.*x.bin"):
        write_whole(tmp_path / "x.bin", write)
