"""The tiles of a prepared dataset as places in slides: training without tile files.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``x, y`` pixels of the region at the region's um/px.
"""

from __future__ import annotations

import logging
import math
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.tiff import SLIDE_SUFFIXES, checked_mpp
from lightmuseg.wsi.tiff_slide import slide_page

from .bcss import CODES, read_mask
from .slide_loading import MaskTile, SlideTile
from .tile_manifest import MANIFEST, place_of, read_manifest
from .tiles import filled

logger = logging.getLogger(__name__)


def load_slide_tiles(
    dataset_dir: str | Path,
    split: str,
    slides_dir: str | Path,
    masks_dir: str | Path,
    slide_mpp: float | None = None,
    region_mpp: float | None = None,
) -> list[dict[str, Any]]:
    """The tiles of one split as MONAI data dictionaries, for ``LoadSlideTiled`` and ``LoadMaskTiled``.

    ``image`` is a :class:`.SlideTile`, ``label`` a :class:`.MaskTile`; the other keys are those of
    :func:`.manifest.load_tiles`. Every slide and mask is found and checked before training starts.

    Args:
        dataset_dir: what ``lightmuseg prepare bcss`` wrote, with or without tile files.
        split: "train", "val" or "test".
        slides_dir: holds one slide a region, at any depth (a download from TCGA has a folder for each): a tiled TIFF
            or SVS whose name begins with the region's, in which BCSS leaves a part of the barcode out.
        masks_dir: the masks the dataset was prepared from.
        slide_mpp: um/px at level 0 of the slides that do not say theirs.
        region_mpp: um/px of all regions; None for what the manifest says, of BCSS's by :func:`rendered_mpp`.

    Raises:
        InputError: where the manifest has no tile in the split, a slide is missing, ambiguous or without um/px, a
            mask is missing or another one, or a region lies outside its slide.
    """
    manifest = read_manifest(dataset_dir)
    tiles_of_roi: dict[str, list[dict[str, Any]]] = {}
    for tile in manifest["tiles"]:
        if tile["split"] == split:
            tiles_of_roi.setdefault(tile["roi"], []).append(tile)
    if not tiles_of_roi:
        there = ", ".join(sorted({tile["split"] for tile in manifest["tiles"]}))
        raise InputError(f"{dataset_dir}: has no tiles in the split {split!r}; its splits are {there}.")
    slides = _slides_in(Path(slides_dir))
    coding = manifest["options"].get("mask_coding", "bcss")
    samples = []
    for source in (source for source in manifest["sources"] if source["roi"] in tiles_of_roi):
        mpp = _mpp_of(source, manifest["options"].get("dataset"), region_mpp, Path(dataset_dir))
        slide = _slide_of(source, slides, slides_dir)
        size0 = _size0(slide, source, mpp, slide_mpp)
        codes = _codes_of(source, Path(masks_dir), coding)
        tiles = tiles_of_roi[source["roi"]]
        samples += [_sample(tile, source, slide, size0, codes, manifest["tile_size"]) for tile in tiles]
    return samples


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


def _mpp_of(source: dict[str, Any], dataset: str | None, given: float | None, folder: Path) -> float:
    """um/px of a region's pixels."""
    if given is not None:
        return checked_mpp(folder / MANIFEST, given, "--region_mpp")
    mpp = rendered_mpp(source["mpp"]) if dataset == "bcss" else source["mpp"]
    if not math.isclose(mpp, source["mpp"]):
        warn_of_scale(source["mpp"], mpp)
    return checked_mpp(folder / MANIFEST, mpp, "--region_mpp")


@lru_cache
def warn_of_scale(nominal: float, mpp: float) -> None:
    """Say once that regions of BCSS are not of the um per pixel that their names say.

    Args:
        nominal: um per pixel of the names.
        mpp: um per pixel that they are read at.
    """
    logger.warning(
        f"BCSS regions named {nominal:g} um/px are of {mpp:g} um/px and read so; "
        f"where yours are not, give --region_mpp {nominal:g}."
    )


def _slides_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name the folder of slides with --slides_dir.")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SLIDE_SUFFIXES)


def _slide_of(source: dict[str, Any], slides: list[Path], folder: str | Path) -> Path:
    roi = source["roi"]
    if source["x0"] is None or source["y0"] is None:
        raise InputError(f"{roi}: its dataset does not say where it lies in a slide; train on its tile files instead.")
    name = roi.split("_xmin")[0]
    # BCSS says TCGA-A2-A0D2-DX1 where TCGA says TCGA-A2-A0D2-01Z-00-DX1
    barcode = re.fullmatch(r"(TCGA-\w\w-\w{4})-(\w+)", name)
    pattern = rf"{barcode[1]}-(\w{{3}}-\w\w-)?{barcode[2]}" if barcode else re.escape(name)
    found = [path for path in slides if re.match(rf"{pattern}(?![A-Za-z0-9])", path.name)]
    if len(found) != 1:
        named = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise InputError(f"{folder}: needs exactly one slide {name}*.svs (or .tif) for region {roi}, found {named}.")
    return found[0]


def _size0(slide: Path, source: dict[str, Any], mpp: float, slide_mpp: float | None) -> tuple[int, int]:
    """Width and height of a region in level-0 pixels of ``slide``; it is proved to lie inside."""
    page, mpps = slide_page(slide)
    if not page.is_tiled:
        raise InputError(f"{slide}: is not a tiled TIFF, of which places can be read; save it as a tiled pyramid.")
    step = mpp / checked_mpp(slide, slide_mpp if mpps is None else mpps[0], "--slide_mpp")
    # the least that rounds down to the region's size; the slack is for um/px that were rounded in the file
    width, height = (math.ceil(source[side] * step - 0.01) for side in ("width", "height"))
    right, lower = source["x0"] + width, source["y0"] + height
    if right > page.imagewidth or lower > page.imagelength:
        raise InputError(
            f"{slide}: {page.imagewidth} x {page.imagelength} pixels do not hold region {source['roi']}, which ends at "
            f"{right}, {lower}; check --slide_mpp, --region_mpp and that it is the right slide."
        )
    return width, height


def _codes_of(source: dict[str, Any], folder: Path, coding: str) -> np.ndarray:
    path = folder / Path(source["mask"]).name
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder of masks with --masks_dir.")
    if sha256_of(path) != source["mask_sha256"]:
        raise InputError(f"{path}: is not the mask the dataset was prepared from; prepare the dataset again.")
    return read_mask(path, coding)


def _sample(
    tile: dict[str, Any], source: dict[str, Any], slide: Path, size0: tuple[int, int], codes: np.ndarray, size: int
) -> dict[str, Any]:
    x, y = tile["x"], tile["y"]
    width, height = min(size, source["width"] - x), min(size, source["height"] - y)
    step_x, step_y = size0[0] / source["width"], size0[1] / source["height"]
    mask = filled(codes[y : y + height, x : x + width], size, CODES["outside_roi"])
    name = f"{tile['roi']}_x{x}_y{y}"
    return {
        "image": SlideTile(
            name=name,
            slide=str(slide),
            x0=source["x0"] + x * step_x,
            y0=source["y0"] + y * step_y,
            width0=width * step_x,
            height0=height * step_y,
            width=width,
            height=height,
            size=size,
        ),
        "label": MaskTile(name, zlib.compress(mask.tobytes(), 1), size),
        **place_of(tile, source),
    }
