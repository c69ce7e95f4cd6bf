import importlib
import subprocess
import sys

import pytest
from monai.utils import OptionalImportError, optional_import

from lightmuseg.errors import user_fault

START = "from lightmuseg.errors import *; report_faults_in_one_line()\n"


def run(code):
    return subprocess.run([sys.executable, "-c", START + code], capture_output=True, text=True, timeout=60)


def fault(code):
    """The one line of a run that must have ended in a user's fault."""
    result = run(code)
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.returncode == 1, result.stderr
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("lightmuseg: error: ")
    assert not result.stdout
    return lines[0].removeprefix("lightmuseg: error: ")


def test_input_error_is_one_line():
    assert fault("raise InputError('a.png: no such image; give one.')") == "a.png: no such image; give one."


def test_input_error_behind_a_runtime_error_is_one_line():
    code = """
try:
    raise InputError('mask.png: holds code 99.')
except InputError as error:
    raise RuntimeError('applying transform') from error
"""
    assert fault(code) == "mask.png: holds code 99."


def test_input_error_two_causes_deep_is_one_line():
    code = """
try:
    try:
        raise InputError('mask.png: holds code 99.')
    except InputError as error:
        raise KeyError('inner') from error
except KeyError as error:
    raise RuntimeError('outer') from error
"""
    assert fault(code) == "mask.png: holds code 99."


def test_missing_file_is_one_line_that_names_it():
    assert fault("open('/nonexistent/weights.pt')") == "No such file or directory: /nonexistent/weights.pt"


def test_full_disk_is_one_line():
    code = "import errno, os; raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
    assert fault(code) == "No space left on device"


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise ValueError('a bug')", "ValueError: a bug"),
        ("raise OSError('no errno')", "OSError: no errno"),
        ("raise RuntimeError('a') from ZeroDivisionError('b')", "RuntimeError: a"),
    ],
)
def test_bug_keeps_its_traceback(code, last):
    result = run(code)
    assert result.returncode == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1] == last
    assert "lightmuseg: error" not in result.stderr


def test_bug_in_the_handling_of_a_fault_keeps_its_traceback():
    result = run("try:\n    open('/nonexistent/cache')\nexcept OSError:\n    1 / 0")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_interrupt_has_no_traceback_and_does_not_succeed():
    result = run("raise KeyboardInterrupt")
    assert result.returncode != 0
    assert result.stderr.strip() == "lightmuseg: interrupted"


def test_success_prints_nothing():
    result = run("pass")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_engine_does_not_log_the_fault_a_second_time():
    code = """
from ignite.engine import Engine
def step(engine, batch):
    raise InputError('tile.png: broken.')
Engine(step).run([1], max_epochs=1)
"""
    assert fault(code) == "tile.png: broken."


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "behind a transform's RuntimeError"])
def test_input_error_of_a_loaders_worker_process_is_one_line(wrapped):
    code = f"""
from torch.utils.data import DataLoader
class Tiles(list):
    def __getitem__(self, index):
        try:
            raise InputError('tile3.png: broken.')
        except InputError as error:
            if {wrapped}:
                raise RuntimeError('applying transform LoadImaged') from error
            raise
next(iter(DataLoader(Tiles([3]), num_workers=1)))
"""
    assert fault(code) == "tile3.png: broken."


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("from lightmuseg.errors import nothing", "cannot import name 'nothing' from 'lightmuseg.errors'"),
        ("import lightmuseg.nothing", "No module named 'lightmuseg.nothing'"),
        ("from json import nothing", "cannot import name 'nothing' from 'json'"),
    ],
)
def test_an_import_that_cannot_be_right_is_a_bug(code, last):
    with pytest.raises(ImportError) as caught:
        exec(code)
    assert last in str(caught.value)
    assert user_fault(caught.value) is None


def test_a_package_that_is_not_installed_is_a_users_fault():
    with pytest.raises(ImportError) as caught:
        importlib.import_module("not_installed")
    assert user_fault(caught.value) == "No module named 'not_installed'"
    needed, _ = optional_import("not_installed")
    with pytest.raises(OptionalImportError) as missing:
        needed.anything()
    assert "not_installed" in user_fault(missing.value)


def test_a_lock_that_another_process_holds_is_one_line():
    assert fault("import filelock; raise filelock.Timeout('a.lock')").startswith("The file lock 'a.lock' could not")
