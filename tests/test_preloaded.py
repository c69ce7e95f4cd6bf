"""A preloaded command does what a process of its own does."""

import json
import os
import signal
import subprocess
import sys

import pytest

SAYS = """
import json, os, sys
print(json.dumps([sys.argv, sys.path[0], os.getcwd(), os.environ.get("TMPDIR"), __name__, sys.stdin.read()]))
print("to stderr", file=sys.stderr)
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a script, a package and a package of the same name as ours."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "says.py").write_text(SAYS)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "__main__.py").write_text(SAYS)
    return tmp_path


def both(run, *words, **options):
    """What a process of its own gives, having seen that a preloaded one gives the same."""
    true, preloaded = (run("python", *words, truly=truly, **options) for truly in (True, False))
    assert preloaded == true
    return true


@pytest.mark.parametrize(
    "words",
    [
        ("scripts/says.py", "a b", "é"), ("-m", "package", "--option"), ("-c", SAYS, "x"),
        ("-W", "ignore", "-B", "-m", "package"), ("-u", "scripts/says.py"),
    ],
)  # fmt: skip
def test_words_folder_variables_and_streams_are_those_of_a_process(run, place, words):
    status, stdout, stderr = both(run, *words, cwd=place, TMPDIR="/somewhere")
    assert status == 0
    assert json.loads(stdout)[2:] == [str(place), "/somewhere", "__main__", ""]
    assert stderr == "to stderr"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(3)", 3), ("import sys; sys.exit('no such thing')", 1), ("raise SystemExit", 0),
        ("import os; os._exit(7)", 7), ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -15), ("pass", 0),
        ("import atexit; atexit.register(print, 'last')", 0),
        ("import threading; threading.Timer(.1, print, 'a').start()", 0),
        ("import warnings; warnings.warn('unheard')", 0),
    ],
)  # fmt: skip
def test_it_ends_as_a_process_does(run, code, status):
    assert both(run, "-c", code)[0] == status


def test_a_bug_keeps_its_traceback(run, tmp_path):
    (tmp_path / "bug.py").write_text("def wrong():\n    return 1 / 0\nwrong()\n")
    status, _, stderr = run("python", "bug.py", cwd=tmp_path)
    assert status == 1
    assert stderr.startswith("Traceback (most recent call last):\n")
    assert 'bug.py", line 2, in wrong\n' in stderr
    assert stderr.endswith("\nZeroDivisionError: division by zero")


def test_libraries_are_loaded_already_unless_a_variable_or_another_copy_asks_for_a_process(run, place):
    loaded = "import sys; print('torch' in sys.modules)"
    assert run("python", "-c", loaded)[1] == "True\n"
    assert run("python", "-c", loaded, HF_ENDPOINT="http://127.0.0.1")[1] == "False\n"
    (place / "lightmuseg").mkdir()
    (place / "lightmuseg" / "__init__.py").write_text("__version__ = 'another'")
    assert run("python", "-c", "import lightmuseg; print(lightmuseg.__version__)", cwd=place)[1] == "another\n"


def test_what_a_command_starts_is_preloaded_too(run):
    inner = "import sys; print('torch' in sys.modules); sys.exit(5)"
    outer = f"import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', {inner!r}]).returncode)"
    assert run("python", "-c", outer)[:2] == (5, "True\n")


def test_a_program_takes_streams_and_signals(preloaded, tmp_path):
    echo = [preloaded.executable, "-c", "print(input()[::-1])"]
    assert subprocess.run(echo, input="abc\n", capture_output=True, text=True).stdout == "cba\n"
    sleeper = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\nprint('up', flush=True)\ntime.sleep(600)"
    process = subprocess.Popen([preloaded.executable, "-c", sleeper], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    process.kill()
    # ends when the killed one's command does, which holds the other end
    assert process.stdout.read() == ""
    assert process.wait() == -signal.SIGKILL


def test_a_command_that_lasts_too_long_is_killed(preloaded, tmp_path):
    environment = {**os.environ, "PYTHONPATH": ""}
    with pytest.raises(subprocess.TimeoutExpired):
        preloaded.run(["-c", "import time; time.sleep(600)"], str(tmp_path), environment, 0.2)


def test_it_is_the_interpreter_of_the_tests(run):
    code = "import sys; print(sys.prefix, sys.version)"
    assert run("python", "-c", code)[1] == f"{sys.prefix} {sys.version}\n"
