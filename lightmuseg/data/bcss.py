"""The BCSS dataset: its codes, its file names, its folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem, read_codes

# meta/gtruth_codes.tsv of the dataset, in the order of its codes 0 to 21.
CODE_NAMES = (
    "outside_roi", "tumor", "stroma", "lymphocytic_infiltrate", "necrosis_or_debris", "glandular_secretions", "blood",
    "exclude", "metaplasia_NOS", "fat", "plasma_cells", "other_immune_infiltrate", "mucoid_material",
    "normal_acinus_or_duct", "lymphatics", "undetermined", "nerve", "skin_adnexa", "blood_vessel", "angioinvasion",
    "dcis", "other",
)  # fmt: skip
CODES = {name: code for code, name in enumerate(CODE_NAMES)}
UNANNOTATED = (CODES["outside_roi"], CODES["exclude"])

# How a folder's masks are to be read: value in the file -> BCSS code.
MASK_CODINGS: dict[str, dict[int, int]] = {
    "bcss": {code: code for code in CODES.values()},
    "tumor": {0: CODES["other"], 1: CODES["tumor"], 255: CODES["tumor"]},
    "bcss-wsss": {
        0: CODES["tumor"],
        1: CODES["stroma"],
        2: CODES["lymphocytic_infiltrate"],
        3: CODES["necrosis_or_debris"],
        4: CODES["outside_roi"],
    },
}

# JPEG would turn codes into their neighbours.
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")

_NAME = re.compile(r"(?P<patient>TCGA-\w\w-\w{4}).*_xmin(?P<x0>\d+)_ymin(?P<y0>\d+)_MPP-(?P<mpp>\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Region:
    """An annotated rectangle of a slide: its image and its mask, in files.

    ``image`` is None where the pixels are to come from the slide. ``x0``, ``y0`` are the level-0 pixel of the slide
    at the image's left upper corner, None where nobody says; ``mpp`` is in um/px. ``image_label`` holds the codes
    that a label of the whole image says are there, None where it has no such label.
    """

    name: str
    patient: str
    image: Path | None
    mask: Path
    x0: int | None
    y0: int | None
    mpp: float
    image_label: tuple[int, ...] | None = None


def find_regions(source: Path, masks: str = "masks", images: bool = True) -> list[Region]:
    """The regions of a BCSS folder, by name.

    Args:
        source: holds one ``rgbs*`` folder of images and a folder of masks of the same file stems.
        masks: name of the latter.
        images: False to do without the former; the regions are then those of all masks, without an image.

    Raises:
        InputError: where a folder is missing, an image has no mask, or a name is not BCSS's.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the BCSS folder that holds rgbs*/ and {masks}/.")
    mask_folder = source / masks
    if not mask_folder.is_dir():
        raise InputError(f"{mask_folder}: no such folder; name the folder of masks with --masks.")
    mask_of_stem = files_by_stem(mask_folder, MASK_SUFFIXES)
    if not images:
        if not mask_of_stem:
            raise InputError(f"{mask_folder}: holds no masks ({', '.join(MASK_SUFFIXES)}).")
        return [Region(stem, **name_parts(mask), image=None, mask=mask) for stem, mask in mask_of_stem.items()]
    regions = []
    for stem, image in _images(source).items():
        parts = name_parts(image)
        if stem not in mask_of_stem:
            raise InputError(f"{image}: has no mask in {mask_folder}; add {stem}.png there or take the image away.")
        regions.append(Region(stem, **parts, image=image, mask=mask_of_stem[stem]))
    return regions


def name_parts(path: Path) -> dict[str, Any]:
    """What a BCSS file's name says: ``patient``, ``x0``, ``y0`` (level-0 pixels) and ``mpp`` (um/px).

    Raises:
        InputError: where the name is not BCSS's.
    """
    match = _NAME.match(path.stem)
    if match is None:
        raise InputError(
            f"{path}: not a BCSS name (TCGA-XX-YYYY-..._xmin0_ymin0_MPP-0.2500), which tells patient, place and um/px."
        )
    return {"patient": match["patient"], "x0": int(match["x0"]), "y0": int(match["y0"]), "mpp": float(match["mpp"])}


def _images(source: Path) -> dict[str, Path]:
    folders = sorted(folder for folder in source.glob("rgbs*") if folder.is_dir())
    if len(folders) != 1:
        found = ", ".join(folder.name for folder in folders) or "none"
        raise InputError(f"{source}: needs exactly one folder rgbs* of images, found {found}.")
    images = files_by_stem(folders[0], IMAGE_SUFFIXES)
    if not images:
        raise InputError(f"{folders[0]}: holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    return images


def read_mask(path: Path, coding: str = "bcss") -> np.ndarray:
    """The BCSS codes, uint8 [H, W], of a mask's file in a coding of :data:`MASK_CODINGS`.

    Raises:
        InputError: where it cannot be read whole, or holds a value the coding does not know.
    """
    return to_codes(read_codes(path), coding, path)


def to_codes(values: np.ndarray, coding: str, mask: Path) -> np.ndarray:
    """Mask values [H, W] as BCSS codes.

    Raises:
        InputError: for a value the coding does not know.
    """
    table = MASK_CODINGS[coding]
    unknown = [int(value) for value in np.unique(values) if int(value) not in table]
    if unknown:
        known = "0 to 21" if coding == "bcss" else ", ".join(str(value) for value in table)
        hint = " (for masks of 0 and 255 add --mask_coding tumor)" if coding == "bcss" and unknown == [255] else ""
        raise InputError(f"{mask}: holds the unknown mask code {unknown[0]}; known are {known}{hint}.")
    lookup = np.zeros(256, dtype=np.uint8)
    lookup[list(table)] = list(table.values())
    return lookup[values]
