"""Slides that cost little, and a network that costs nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from lightmuseg.cohort import segment_cohort

HERE = Path(__file__).parent


def write_slide(path, seed=0, side=500):
    """A lossless slide of plain fields, 0.25 um/px."""
    fields = np.random.default_rng(seed).integers(0, 256, (side // 125, side // 125, 1), dtype=np.uint8)
    pixels = np.broadcast_to(fields, (*fields.shape[:2], 3)).repeat(125, axis=0).repeat(125, axis=1)
    options = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, resolution=(40_000, 40_000), resolutionunit="CENTIMETER", **options)
    return path


@pytest.fixture
def make_slide(tmp_path):
    """Write a slide below the folder ``slides``."""
    return lambda name, seed=0, side=500: write_slide(tmp_path / "slides" / name, seed, side)


@pytest.fixture
def override(tmp_path, monkeypatch):
    """The config of the network that costs nothing, in this process and in those it starts."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parents[1]}:{HERE}")

    def written(runtime="Green()", **values):
        path = tmp_path / "override.json"
        values = {"tissue_mask": False, "runtime_def": f"$__import__('stand_in').{runtime}", **values}
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
            files[record.relative_to(folder).as_posix()] = json.dumps(about, sort_keys=True)
        return files

    return read
