import errno
import hashlib
import json
import os
import platform
import subprocess
import sys

import pytest
import torch

import lightmuseg
from lightmuseg.errors import InputError
from lightmuseg.record import environment, require_space, sha256_of, write_csv, write_json, write_whole


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


def test_write_json_round_trips_other_alphabets(tmp_path):
    content = {"patient": "Žofia Müller", "组织": ["µm", "mm²", "😀"], "mpp": 0.25, "none": None}
    write_json(tmp_path / "run.json", content)
    text = (tmp_path / "run.json").read_bytes().decode("utf-8")
    assert json.loads(text) == content
    assert "Žofia Müller" in text
    assert text.endswith("}\n")


def test_write_json_turns_paths_and_devices_into_text(tmp_path):
    write_json(tmp_path / "run.json", {"path": tmp_path, "device": torch.device("cpu")})
    assert json.loads((tmp_path / "run.json").read_text()) == {"path": str(tmp_path), "device": "cpu"}


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


@pytest.mark.parametrize("size", [0, 5, (1 << 20) + 3])
def test_sha256_equals_hashlibs(tmp_path, size):
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "x").write_bytes(content[:size])
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content[:size]).hexdigest()


def test_environment_names_versions_and_command():
    record = environment()
    assert record["lightmuseg"] == lightmuseg.__version__
    assert record["python"] == platform.python_version()
    assert record["packages"]["torch"] == torch.__version__
    assert record["command"] == sys.argv
    assert "no-such-package" not in record["packages"]
    assert json.loads(json.dumps(record)) == record


def test_table_has_the_columns_of_every_row(tmp_path):
    write_csv(tmp_path / "rows é.csv", [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "dice": 0.1}])
    assert (tmp_path / "rows é.csv").read_text(encoding="utf-8") == "epoch,loss,dice\n1,0.5,\n2,0.25,0.1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows é.csv"]
