"""The tiles of a prepared dataset as places in slides: training without tile files.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``x, y`` pixels of the region at the region's um/px.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.readers import SlideReader, open_slide
from lightmuseg.wsi.slide_search import PICTURES, find_slides

from .bcss import CODES, read_mask
from .region_pixels import resampled_codes
from .slide_loading import MaskTile, SlideTile
from .tile_manifest import place_of, tiles_by_region, tiles_of_split
from .tiles import filled


def load_slide_tiles(
    dataset_dir: str | Path,
    split: str,
    slides_dir: str | Path,
    masks_dir: str | Path,
    slide_mpp: float | None = None,
    backend: str = "auto",
) -> list[dict[str, Any]]:
    """The tiles of one split as MONAI data dictionaries, for ``LoadSlideTiled`` and ``LoadMaskTiled``.

    ``image`` is a :class:`.SlideTile`, ``label`` a :class:`.MaskTile`; the other keys are those of
    :func:`.tile_manifest.load_tiles`. Every slide and mask is found and checked before training starts.

    Args:
        dataset_dir: what ``lightmuseg prepare bcss`` wrote, with or without tile files.
        split: "train", "val" or "test".
        slides_dir: holds one slide a region, at any depth (a download from TCGA has a folder for each), in any format
            that ``lightmuseg segment`` reads. Its name begins with the region's, in which BCSS leaves a part of the
            barcode out; of a PNG or JPEG, taken where there is no other, it is no longer.
        masks_dir: the masks the dataset was prepared from.
        slide_mpp: um/px at level 0 of the slides that do not state theirs, or not one that can be used.
        backend: what reads the slides, as of :func:`lightmuseg.wsi.readers.open_slide`.

    Raises:
        InputError: where the manifest has no tile in the split, a slide is missing, ambiguous, unreadable or without
            um/px, a mask is missing or another one, or a region lies outside its slide.
    """
    manifest, tiles = tiles_of_split(dataset_dir, split)
    tiles_of = tiles_by_region(tiles)
    if manifest["options"].get("dataset") == "annotations":
        raise InputError(f"{dataset_dir}: is of annotated slides and holds its tiles; train on it with train.json.")
    slides_dir, masks_dir = Path(slides_dir), Path(masks_dir)
    if not slides_dir.is_dir():
        raise InputError(f"{slides_dir}: no such folder; name the folder of slides with --slides_dir.")
    slides = sorted(find_slides(slides_dir, pictures=True))
    options, tile_size = manifest["options"], manifest["tile_size"]
    coding = options.get("mask_coding", "bcss")
    samples = []
    for source in (source for source in manifest["sources"] if source["roi"] in tiles_of):
        slide = _slide_of(source, slides, slides_dir)
        codes = _codes_of(source, masks_dir, coding)
        with _opened(slide, backend, slide_mpp) as reader:
            steps0 = _steps0(reader, source, (codes.shape[1], codes.shape[0]))
        codes = resampled_codes(codes, source["picture_mpp"], source["mpp"])
        for tile in tiles_of[source["roi"]]:
            name = f"{tile['roi']}_x{tile['x']}_y{tile['y']}"
            box0, size = _box0(tile, source, steps0, tile_size)
            mask = filled(codes[tile["y"] :, tile["x"] :][:tile_size, :tile_size], tile_size, CODES["outside_roi"])
            samples.append(
                {
                    "image": SlideTile(name, str(reader.path), reader.mpp, box0, size, tile_size),
                    "label": MaskTile(name, zlib.compress(mask.tobytes(), 1), tile_size),
                    **place_of(tile, source),
                }
            )
    return samples


def _slide_of(source: dict[str, Any], slides: list[Path], folder: Path) -> Path:
    roi = source["roi"]
    if source["x0"] is None or source["y0"] is None:
        raise InputError(f"{roi}: its dataset does not say where it lies in a slide; train on its tile files instead.")
    name = roi.split("_xmin")[0]
    # BCSS says TCGA-A2-A0D2-DX1 where TCGA says TCGA-A2-A0D2-01Z-00-DX1
    barcode = re.fullmatch(r"(TCGA-\w\w-\w{4})-(\w+)", name)
    pattern = rf"{barcode[1]}-(\w{{3}}-\w\w-)?{barcode[2]}" if barcode else re.escape(name)
    found = [path for path in slides if re.match(rf"{pattern}(?![A-Za-z0-9])", path.name)]
    # a longer name is that of a region or a thumbnail
    pictures = [path for path in found if path.suffix.lower() in PICTURES and re.fullmatch(pattern, path.stem)]
    found = [path for path in found if path.suffix.lower() not in PICTURES] or pictures
    if len(found) != 1:
        named = ", ".join(str(path.relative_to(folder)) for path in found) or "none"
        raise InputError(
            f"{folder}: needs exactly one slide {name}* (SVS, TIFF, DICOM or another) for region {roi}, found {named}."
        )
    return found[0]


def _opened(slide: Path, backend: str, slide_mpp: float | None) -> SlideReader:
    try:
        try:
            return open_slide(slide, backend)
        except InputError:
            if slide_mpp is None:
                raise
            return open_slide(slide, backend, slide_mpp)
    except InputError as error:
        # which names the option by which other commands take it
        raise InputError(str(error).replace("--mpp", "--slide_mpp")) from error


def _steps0(reader: SlideReader, source: dict[str, Any], picture_size: tuple[int, int]) -> tuple[float, float]:
    """Level-0 pixels of the slide, which holds the region, to one of the dataset's, across and down."""
    step = source["picture_mpp"] / reader.mpp
    # the least that rounds down to the picture's size; the slack is for um/px that were rounded in the file
    width, height = (math.ceil(side * step - 0.01) for side in picture_size)
    right, lower = source["x0"] + width, source["y0"] + height
    level0 = reader.levels[0]
    if right > level0.width or lower > level0.height:
        raise InputError(
            f"{reader.path}: {level0.width} x {level0.height} pixels do not hold region {source['roi']}, which ends at "
            f"{right}, {lower}; check --slide_mpp, the --mpp it was prepared with and that it is the right slide."
        )
    scale = source["mpp"] / source["picture_mpp"]
    return width / picture_size[0] * scale, height / picture_size[1] * scale


def _codes_of(source: dict[str, Any], folder: Path, coding: str) -> np.ndarray:
    path = folder / Path(source["mask"]).name
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the folder of masks with --masks_dir.")
    if sha256_of(path) != source["mask_sha256"]:
        raise InputError(f"{path}: is not the mask the dataset was prepared from; prepare the dataset again.")
    return read_mask(path, coding)


def _box0(
    tile: dict[str, Any], source: dict[str, Any], steps0: tuple[float, float], tile_size: int
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """The part of a tile that lies in its region: in level-0 pixels of the slide, and its own width and height."""
    width, height = min(tile_size, source["width"] - tile["x"]), min(tile_size, source["height"] - tile["y"])
    step_x, step_y = steps0
    corner0 = source["x0"] + tile["x"] * step_x, source["y0"] + tile["y"] * step_y
    return (*corner0, width * step_x, height * step_y), (width, height)
