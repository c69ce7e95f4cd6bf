"""Fixtures for every test."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

ROOT = Path(__file__).parents[1]


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
def run():
    """Run a command in a folder and return (exit status, stdout, stderr without the codecs' greetings)."""

    def call(*command, cwd=ROOT, timeout=600, **environment):
        done = subprocess.run(
            [sys.executable if word == "python" else str(word) for word in command],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        greetings = ("nvjpeg", "nvJPEG", "nvtiff", "nvTIFF", "nvimgcodec", "nvImageCodec", "nvimg")
        stderr = [line for line in done.stderr.splitlines() if not any(word in line for word in greetings)]
        return done.returncode, done.stdout, "\n".join(stderr)

    return call


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
