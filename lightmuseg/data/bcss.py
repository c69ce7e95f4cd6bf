"""The BCSS dataset: its codes, its file names, its folder."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.images import IMAGE_SUFFIXES, files_by_stem, image_size, read_codes, read_rgb

from .region_pixels import resampled_codes, resampled_pixels, resampled_size

logger = logging.getLogger(__name__)

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

# The colours of the BCSS-WSSS masks, as its readme gives them, in the order of their values 0 to 4.
PALETTE = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (153, 0, 255), (255, 255, 255))
# JPEG would turn codes into their neighbours.
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")

_NAME = re.compile(r"(?P<patient>TCGA-\w\w-\w{4}).*_xmin(?P<x0>\d+)_ymin(?P<y0>\d+)_MPP-(?P<mpp>\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class Region:
    """An annotated rectangle of a slide: its image and its mask, in files.

    ``image`` is None where the pixels are to come from the slide. ``x0``, ``y0`` are the level-0 pixel of the slide
    at the image's left upper corner, None where nobody says; ``mpp`` is what the files' pixels truly have, in um/px.
    ``image_label`` holds the codes that a label of the whole image says are there, None where it has no such label.
    """

    name: str
    patient: str
    image: Path | None
    mask: Path
    x0: int | None
    y0: int | None
    mpp: float
    image_label: tuple[int, ...] | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Its files by kind: "image", where it has one, and "mask"."""
        return {"mask": self.mask} if self.image is None else {"image": self.image, "mask": self.mask}

    def size(self, mpp: float | None) -> tuple[int, int]:
        """Width and height at ``mpp`` um/px, from its files' headers; None for its picture's own um/px."""
        return resampled_size(image_size(self.image or self.mask), self.mpp, mpp)

    def entry(self, mpp: float | None) -> dict[str, Any]:
        """What a manifest says of it: size and um/px of its tiles, ``picture_mpp`` of its files, and their hashes."""
        width, height = self.size(mpp)
        entry = {"roi": self.name} | {name: getattr(self, name) for name in ("patient", "x0", "y0")}
        entry |= {"mpp": self.mpp if mpp is None else mpp, "picture_mpp": self.mpp, "width": width, "height": height}
        for kind, path in self.files.items():
            entry |= {kind: path.name, f"{kind}_sha256": sha256_of(path)}
        return entry

    def read(self, coding: str, mpp: float | None) -> tuple[np.ndarray | None, np.ndarray]:
        """Its pixels, uint8 [H, W, 3], or None without an image, and its BCSS codes, uint8 [H, W].

        Args:
            coding: of its mask, a key of :data:`MASK_CODINGS`.
            mpp: um/px of both; None for the picture's own.

        Raises:
            InputError: for a file that cannot be read, or where image and mask are of two sizes.
        """
        codes = read_mask(self.mask, coding)
        image = None if self.image is None else read_rgb(self.image)
        if self.image is not None and image is not None and image.shape[:2] != codes.shape:
            raise InputError(
                f"{self.mask}: is {codes.shape[1]} x {codes.shape[0]} pixels, its image {self.image.name} is "
                f"{image.shape[1]} x {image.shape[0]}; they must be of one size."
            )
        pixels = None if image is None else resampled_pixels(image, self.mpp, mpp)
        return pixels, resampled_codes(codes, self.mpp, mpp)


def find_regions(source: Path, masks: str = "masks", images: bool = True, mpp: float | None = None) -> list[Region]:
    """The regions of a BCSS folder, by name.

    Args:
        source: holds one ``rgbs*`` folder of images and a folder of masks of the same file stems.
        masks: name of the latter.
        images: False to do without the former; the regions are then those of all masks, without an image.
        mpp: um/px of all of them; None for what :func:`rendered_mpp` makes of their names.

    Raises:
        InputError: where a folder is missing, an image has no mask, or a name is not BCSS's.
    """
    if not source.is_dir():
        raise InputError(f"{source}: no such folder; give the BCSS folder that holds rgbs*/ and {masks}/.")
    remedy = "name the folder of masks with --masks"
    if not images:
        mask_of_stem = _masks_in(source / masks, remedy)
        if not mask_of_stem:
            raise InputError(f"{source / masks}: holds no masks ({', '.join(MASK_SUFFIXES)}).")
        return [Region(stem, **name_parts(mask, mpp), image=None, mask=mask) for stem, mask in mask_of_stem.items()]
    folders = sorted(folder for folder in source.glob("rgbs*") if folder.is_dir())
    if len(folders) != 1:
        found = ", ".join(folder.name for folder in folders) or "none"
        raise InputError(f"{source}: needs exactly one folder rgbs* of images, found {found}.")
    return regions_of(folders[0], source / masks, remedy, partial(name_parts, mpp=mpp))


def _masks_in(folder: Path, remedy: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; {remedy}.")
    return files_by_stem(folder, MASK_SUFFIXES)


def regions_of(
    images: Path, masks: Path, remedy: str, parts: Callable[[Path], dict[str, Any]], prefix: str = ""
) -> list[Region]:
    """The images of a folder with the masks of another that have the same file stems.

    Args:
        images, masks: the folders.
        remedy: what to do where there is no folder of masks.
        parts: what an image's name says, as fields of :class:`Region`.
        prefix: of the regions' names, before the file's stem.

    Raises:
        InputError: where there are no masks or images, or an image has no mask.
    """
    mask_of_stem = _masks_in(masks, remedy)
    image_of_stem = files_by_stem(images)
    if not image_of_stem:
        raise InputError(f"{images}: holds no images ({', '.join(IMAGE_SUFFIXES)}).")
    regions = []
    for stem, image in image_of_stem.items():
        fields = parts(image)
        if stem not in mask_of_stem:
            raise InputError(f"{image}: has no mask in {masks}; add {stem}.png there or take the image away.")
        regions.append(Region(name=prefix + stem, image=image, mask=mask_of_stem[stem], **fields))
    return regions


def name_parts(path: Path, mpp: float | None = None) -> dict[str, Any]:
    """What a BCSS file's name says: ``patient``, ``x0``, ``y0`` (level-0 pixels) and ``mpp`` (true um/px).

    Args:
        path: its name counts alone.
        mpp: in place of what :func:`rendered_mpp` makes of the name's.

    Raises:
        InputError: where the name is not BCSS's.
    """
    match = _NAME.match(path.stem)
    if match is None:
        raise InputError(
            f"{path}: not a BCSS name (TCGA-XX-YYYY-..._xmin0_ymin0_MPP-0.2500), which tells patient, place and um/px."
        )
    if mpp is None:
        mpp = rendered_mpp(float(match["mpp"]))
        if mpp != float(match["mpp"]):
            warn_of_scale(float(match["mpp"]), mpp)
    return {"patient": match["patient"], "x0": int(match["x0"]), "y0": int(match["y0"]), "mpp": mpp}


def rendered_mpp(mpp: float) -> float:
    """um/px that BCSS's regions of this nominal um/px truly have.

    BCSS's download script asks its server for mm/px with four decimals, ``"%.4f" % (0.001 * 0.25)``, which is 0.0003:
    regions named ``MPP-0.2500`` are of 0.30 um/px. Their sizes prove it: 3394 pixels of 0.30 um are the 4040 level-0
    pixels of 0.2520 um of TCGA-A1-A0SK in the dataset's meta/roiBounds.csv. The server cut level 0 at ``x0, y0`` and
    resized with Pillow, Lanczos down and bicubic up, to whole pixels rounded down. Where a slide has 0.25 um/px or
    less, most sizes at level 0 follow from that exactly, and the others to one pixel.

    >>> rendered_mpp(0.25), rendered_mpp(0.23)
    (0.3, 0.2)
    """
    return round(1000 * float(f"{0.001 * mpp:.4f}"), 6)


@lru_cache
def warn_of_scale(nominal: float, mpp: float) -> None:
    """Say once that regions of BCSS are not of the um per pixel that their names say."""
    logger.warning(
        f"BCSS regions named {nominal:g} um/px are of {mpp:g} um/px and taken so; where yours are not, prepare them "
        f"with --mpp {nominal:g}."
    )


def read_mask(path: Path, coding: str = "bcss") -> np.ndarray:
    """The BCSS codes, uint8 [H, W], of a mask's file in a coding of :data:`MASK_CODINGS`.

    An index or grey image is read by value; in "bcss-wsss" a colour image by :data:`PALETTE`.

    Raises:
        InputError: where it cannot be read whole, or holds a value or colour that the coding does not know.
    """
    is_coloured = coding == "bcss-wsss" and _is_colour(path)
    return to_codes(_values_of_colours(path) if is_coloured else read_codes(path), coding, path)


def _is_colour(path: Path) -> bool:
    # what cannot be opened is for the reader of masks to report
    try:
        with Image.open(path) as image:
            return image.mode in ("RGB", "RGBA")
    except (OSError, SyntaxError, ValueError):
        return False


def _values_of_colours(path: Path) -> np.ndarray:
    pixels = read_rgb(path)
    values = np.full(pixels.shape[:2], len(PALETTE), np.uint8)
    for value, colour in enumerate(PALETTE):
        values[(pixels == colour).all(axis=-1)] = value
    unknown = pixels[values == len(PALETTE)]
    if len(unknown):
        colour = tuple(unknown[0].tolist())
        raise InputError(f"{path}: holds the unknown colour {colour}; known are {', '.join(map(str, PALETTE))}.")
    return values


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
