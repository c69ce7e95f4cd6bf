"""Fixtures for every test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Processes of tests side by side share the cores; the libraries below read this when they load.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import numpy as np
import pytest
import tifffile
from filelock import FileLock
from preloaded import LIBRARIES, Preloaded

ROOT = Path(__file__).parents[1]
# where scripts find uv, unless there is one already
os.environ["PATH"] += os.pathsep + str(Path(sys.executable).parent)


# What takes long begins first, and the longest before all, so that processes side by side end together.
LONGEST, LONG = "test_readme.py", ("slow", "cohort", "label", "training", "nightly", "view")


def pytest_collection_modifyitems(items):
    """Put what takes long first, and give it time."""

    def rank(item):
        found = [number for number, name in enumerate(LONG) if item.get_closest_marker(name)]
        return min(found, default=len(LONG))

    modules = {}
    for item in items:
        modules[item.path] = min(rank(item), modules.get(item.path, len(LONG)))
        if rank(item) < len(LONG) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
    items.sort(key=lambda item: (modules[item.path], item.path.name != LONGEST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """What a test logs may be no Unicode, and then cannot be sent to the process that reports."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def data():
    """The folder of real slides and regions that LIGHTMUSEG_DATA names."""
    folder = os.environ.get("LIGHTMUSEG_DATA")
    if not folder:
        pytest.skip("LIGHTMUSEG_DATA is not set: no real slides and regions here")
    return Path(folder)


@pytest.fixture(scope="session")
def root():
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def clean_copy():
    """Copy the repository's files as they are now, without anything made by running it, to a new folder."""

    def copy(target):
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target / name)
        return target

    return copy


@pytest.fixture(scope="session")
def preloaded():
    """A server that has loaded the libraries and starts commands of Python at once; see preloaded.py."""
    server = Preloaded(LIBRARIES)
    yield server
    server.close()


@pytest.fixture(scope="session")
def run(preloaded):
    """Run a command in a folder and return (exit status, stdout, stderr without the codecs' greetings).

    Commands of Python are started by the server; ``truly=True`` starts a process that loads the libraries itself.
    """

    def call(*command, cwd=ROOT, timeout=600, truly=False, **environment):
        first, *words = map(str, command)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **environment}
        if first == "python" and not truly:
            status, stdout, stderr = preloaded.run(words, str(cwd), environment, timeout)
        else:
            first = sys.executable if first == "python" else first
            done = subprocess.run(
                [first, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
            )
            status, stdout, stderr = done.returncode, done.stdout, done.stderr
        greetings = ("nvjpeg", "nvJPEG", "nvtiff", "nvTIFF", "nvimgcodec", "nvImageCodec", "nvimg")
        lines = [line for line in stderr.splitlines() if not any(word in line for word in greetings)]
        return status, stdout, "\n".join(lines)

    return call


@pytest.fixture(scope="session")
def downloads():
    """Where the exported bundle says that its large files will lie."""
    return "https://example.org/v1"


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory, worker_id):
    """A folder that all processes of the tests share."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def exported(run, shared_folder, downloads):
    """The bundle as ``scripts/export_bundle.py`` writes it, beside its zip; one for all processes of the tests."""
    output, made = shared_folder / "exported to" / "dist é", shared_folder / "exported.txt"
    words = ("python", "scripts/export_bundle.py", "--output", output, "--download_url", downloads)
    with FileLock(f"{made}.lock"):
        if not made.exists():
            status, stdout, stderr = run(*words)
            assert status == 0, stderr
            made.write_text(stdout.splitlines()[0], encoding="utf-8")
    return Path(made.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def new_environment():
    """Make an environment of Python in a folder and install what is named, as words of pip; returns its interpreter."""

    def make(folder, *words):
        python = folder / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        command = [sys.executable, "-m", "uv", "pip", "install", "--python", python, *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        return python

    return make


@pytest.fixture(scope="session")
def write_plain_slide():
    """Write a lossless slide of plain fields of 125 pixels, or of one shade, 0.25 um/px."""

    def write(path, seed=0, side=1000, shade=None):
        fields = np.random.default_rng(seed).integers(0, 256, (side // 125, side // 125, 1), dtype=np.uint8)
        if shade is not None:
            fields[:] = shade
        pixels = np.broadcast_to(fields, (*fields.shape[:2], 3)).repeat(125, axis=0).repeat(125, axis=1)
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
        return path

    return write


class Renames:
    """Calls in order: ("sync", inode), ("rename", inodes by path, target), ("renamed", inode of the folder)."""

    def __init__(self):
        self.calls = []

    def __call__(self):
        """The names that were given, each after the sync of all that it shows, and before that of its folder."""
        places = [number for number, call in enumerate(self.calls) if call[0] == "rename"]
        for number in places:
            _, shown, target = self.calls[number]
            synced = {call[1] for call in self.calls[:number] if call[0] == "sync"}
            assert {str(path) for path, inode in shown.items() if inode not in synced} == set(), target
            assert ("sync", self.calls[number + 1][1]) in self.calls[number + 2 :], target
        return [self.calls[number][2].name for number in places]


@pytest.fixture
def renames(monkeypatch):
    """Watch what is synced and renamed; called, it checks the order and returns the names."""
    renames, fsync, replace = Renames(), os.fsync, os.replace

    def watched_fsync(descriptor):
        fsync(descriptor)
        renames.calls.append(("sync", os.fstat(descriptor).st_ino))

    def watched_replace(source, target):
        source, target = Path(source), Path(target)
        inner = [source, *source.rglob("*")] if source.is_dir() else [source]
        if any(".zarr" in folder.name for folder in target.parents):
            # Zarr's own, in a folder that nobody sees yet
            replace(source, target)
            return
        renames.calls.append(("rename", {path: path.stat().st_ino for path in inner}, target))
        replace(source, target)
        renames.calls.append(("renamed", target.parent.stat().st_ino))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    return renames
