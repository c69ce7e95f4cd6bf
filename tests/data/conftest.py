"""A small folder in the form of BCSS, and snapshots of folders."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# (width, height) of each region; the first two are of one patient.
REGIONS = {
    "TCGA-A1-AAAA-DX1_xmin10_ymin20_MPP-0.2500": (300, 200),
    "TCGA-A1-AAAA-DX1_xmin900_ymin20_MPP-0.2500": (130, 97),
    "TCGA-B2-BBBB-DX1_xmin0_ymin7_MPP-0.2500": (128, 128),
    "TCGA-C3-CCCC-DX1_xmin5_ymin5_MPP-0.2500": (64, 257),
    "TCGA-D4-DDDD-DX1_xmin123456_ymin98765_MPP-0.2520": (90, 60),
    "TCGA-E5-EEEE-DX1_xmin1_ymin2_MPP-0.2500": (256, 129),
}


@dataclass
class Bcss:
    """A folder with ``rgbs`` and ``masks``, and what its files hold by stem."""

    folder: Path
    images: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]


def random_region(width: int, height: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth picture [H, W, 3] and patches of codes 0 to 21 [H, W]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8))
    patches = rng.integers(0, 22, (height // 24 + 1, width // 24 + 1), dtype=np.uint8)
    codes = patches.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]
    return np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)), codes


def write_bcss(folder: Path, sizes: dict[str, tuple[int, int]]) -> Bcss:
    """Write regions of these sizes by file stem."""
    bcss = Bcss(folder, {}, {})
    for kind in ("rgbs", "masks"):
        (folder / kind).mkdir(parents=True)
    for seed, (stem, size) in enumerate(sizes.items()):
        bcss.images[stem], bcss.masks[stem] = random_region(*size, seed)
        Image.fromarray(bcss.images[stem]).save(folder / "rgbs" / f"{stem}.png")
        Image.fromarray(bcss.masks[stem]).save(folder / "masks" / f"{stem}.png")
    return bcss


@pytest.fixture
def bcss(tmp_path):
    """Six regions of five patients, in a path with a space and letters outside ASCII."""
    return write_bcss(tmp_path / "Präparate µ 1", REGIONS)


@pytest.fixture(scope="module")
def large_bcss(tmp_path_factory):
    """Enough regions that cutting them takes a while."""
    sizes = {f"TCGA-L{n % 10}-{n:04d}-DX1_xmin0_ymin0_MPP-0.2500": (1000, 700) for n in range(12)}
    return write_bcss(tmp_path_factory.mktemp("large"), sizes)


@pytest.fixture(scope="session")
def snapshot():
    """A function: everything under a folder, with bytes and time of change."""

    def take(folder):
        return {
            path.relative_to(folder): (path.read_bytes() if path.is_file() else None, path.stat().st_mtime_ns)
            for path in sorted(folder.rglob("*"))
        }

    return take
