"""What a result rests on: versions, the machine, the command and hashes of files."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from lightmuseg import __version__

PACKAGES = (
    "monai", "torch", "pytorch-ignite", "numpy", "scipy", "pillow", "tifffile", "nibabel", "cucim-cu13", "cucim-cu12",
    "scikit-image", "shapely", "simplejpeg", "rasterio", "openslide-python", "openslide-bin", "imagecodecs", "wsidicom",
    "highdicom", "zarr", "openvino", "nncf", "onnxruntime-gpu", "onnxruntime", "tensorrt-cu13",
)  # fmt: skip


def sha256_of(path: str | Path, go_on: Callable[[], None] = lambda: None) -> str:
    """Hex SHA-256 of a file's bytes; ``go_on``, called again and again, may end it by an error."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            go_on()
            digest.update(block)
    return digest.hexdigest()


def environment() -> dict[str, Any]:
    """Versions, machine and command of this process, for run records."""
    return {
        "lightmuseg": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def _commit() -> str | None:
    """The commit of the source tree this process loaded the package from; None where it is no git checkout."""
    if not (Path(__file__).parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
