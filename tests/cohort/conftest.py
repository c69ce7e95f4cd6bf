"""Slides that cost little, and a network that costs nothing."""

import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lightmuseg.cohort import segment_cohort

HERE = Path(__file__).parent


@pytest.fixture
def make_slide(tmp_path, write_plain_slide):
    """Write a small slide below the folder ``slides``."""

    def make(name, seed=0, side=500, shade=None):
        return write_plain_slide(tmp_path / "slides" / name, seed, side, shade)

    return make


@pytest.fixture
def override(tmp_path, monkeypatch):
    """The config of the network that costs nothing, in this process and in those it starts."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")

    def written(runtime="Green()", **values):
        path = tmp_path / "override.json"
        values = {"tissue_mask": False, "runtime": f"$__import__('stand_in').{runtime}", **values}
        path.write_text(json.dumps(values))
        return path

    return written


@pytest.fixture
def cohort(tmp_path, root, override):
    """Segment ``sources`` into ``output`` by the network that costs nothing."""

    def run(*sources, output=tmp_path / "out", values=None, runtime="Green()", **options):
        sources = [str(source) for source in sources or [tmp_path / "slides"]]
        return segment_cohort(sources, output, root / "bundle", override(runtime), values, **options)

    return run


@pytest.fixture
def contents():
    """The files of all results below a folder, by name; of run.json what does not differ from run to run."""

    def read(folder):
        files = {}
        for record in sorted(folder.rglob("run.json")):
            if any(part.startswith(".") for part in record.relative_to(folder).parts):
                continue
            for path in sorted(record.parent.rglob("*")):
                if path.is_file():
                    files[path.relative_to(folder).as_posix()] = path.read_bytes()
            about = json.loads(record.read_text())
            del about["seconds"], about["command"], about["options"]["output_dir"]
            # threads that read: workers share the machine's cores
            del about["options"]["workers"]
            files[record.relative_to(folder).as_posix()] = json.dumps(about, sort_keys=True)
        return files

    return read


@pytest.fixture
def real_slides(data):
    """Cut slides from real regions: called with a folder, their number and the sides between which they are."""

    def cut(folder, count, sides=(600, 900)):
        rng = np.random.default_rng(0)
        regions = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((data / "bcss" / "rgbs").iterdir())]
        paths = []
        for number in range(count):
            region = regions[number % len(regions)]
            height, width = rng.integers(*sides, size=2, endpoint=True)
            y, x = rng.integers(0, region.shape[0] - height), rng.integers(0, region.shape[1] - width)
            path = folder / f"patient {number % 20:02d}" / f"HE {number:03d}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"tile": (256, 256), "photometric": "rgb", "compression": "deflate"}
            tifffile.imwrite(
                path, region[y : y + height, x : x + width], resolution=(40_000, 40_000), resolutionunit="CENTIMETER",
                **options,
            )  # fmt: skip
            paths.append(path)
        return paths

    return cut


@pytest.fixture
def command(root, override, tmp_path):
    """Start the command line in a process, and return it with what it says in a file."""
    started = []

    def start(*words, runtime="Green()", said=tmp_path / "said.txt"):
        bundle = ("--no-tissue-mask", "--bundle", root / "bundle", "--override", override(runtime))
        line = [sys.executable, "-W", "ignore", "-m", "lightmuseg.cli", "cohort", *map(str, (*words, *bundle))]
        with open(said, "w") as file:
            # Ctrl-C reaches it, as in a terminal, also where this runs in the background
            process = subprocess.Popen(
                line, stdout=file, stderr=subprocess.STDOUT, cwd=tmp_path,
                preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
            process.wait()
