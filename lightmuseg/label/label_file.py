"""An annotator's label of an image, as files and clients bring it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image

from lightmuseg.areas.annotations import POLYGONS, read_annotations
from lightmuseg.areas.region_of_interest import counted
from lightmuseg.classes import IGNORED
from lightmuseg.data.bcss import CODES
from lightmuseg.data.class_names import codes_of
from lightmuseg.data.ground_truth import OTHER, UNKNOWN, GroundTruth, drawn_on
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import UNREADABLE, read_codes
from lightmuseg.wsi.readers import SlideReader

from .prediction import Box

IMAGES = (".png", ".tif", ".tiff")
# Pairs of edges whose boxes overlap, beyond those of neighbours: what takes a second.
MAX_OVERLAPS = 50_000


def read_ground_truth(
    path: Path, name: str, reader: SlideReader, classes: Mapping[str, Sequence[int]], info: Mapping[str, Any]
) -> GroundTruth:
    """Read a label.

    Polygons: everything inside polygons of the class ``Region*`` is annotated, or inside the ``bbox`` that ``info``
    names, or, of a picture such as PNG, everywhere; there, what no polygon covers is "other". Else only what the
    polygons cover is known. Label images: class indices of every pixel of level 0, 255 where nobody annotated.

    Args:
        path: of the label.
        name: stands for it in messages.
        reader: the image.
        classes: codes of the network's classes; a label image's indices count them from 1.
        info: what the client states of the label; ``bbox`` [x, y, width, height] in level-0 pixels.

    Raises:
        InputError: for a label that is broken, unsafe, of unknown classes or another size, or beside the image.
    """
    ending = path.suffix.lower()
    level0 = reader.levels[0]
    if ending in IMAGES:
        return _of_image(path, name, (level0.width, level0.height), classes)
    if ending not in POLYGONS:
        raise InputError(f"{name}: is of no known kind; give {', '.join((*POLYGONS, *IMAGES))}.")
    size0 = level0.width, level0.height
    others: Counter[str] = Counter()
    annotations = read_annotations(path, name, others, MAX_OVERLAPS)
    if others:
        raise InputError(f"{name}: holds what is no polygon ({counted(others)}); delete it.")
    if any(not class_name for class_name, _ in annotations):
        raise InputError(f"{name}: holds an object without a class; set its class, or delete it.")
    codes = codes_of({class_name for class_name, _ in annotations}, classes, name)
    areas, polygons = drawn_on([(codes[class_name], polygon) for class_name, polygon in annotations], size0, name)
    slide = shapely.box(0, 0, *size0)
    if info.get("bbox"):
        areas.append(_bbox(info["bbox"], reader))
    if not areas and reader.backend == "image":
        areas.append(slide)
    areas = areas or [polygon for _, polygon in polygons]
    if not areas:
        raise InputError(f"{name}: holds no annotation; draw some, or Region* around what is free of them.")
    return GroundTruth(size0, shapely.intersection(shapely.union_all(areas), slide), polygons)


def _bbox(value: Any, reader: SlideReader) -> shapely.Polygon:
    if not (isinstance(value, list) and len(value) == 4 and all(type(number) is int for number in value)):
        raise InputError(f"bbox {str(value)[:80]}: is not [x, y, width, height] in level-0 pixels; leave it out.")
    return Box.on_slide((value[0], value[1]), (value[2], value[3]), reader).polygon()


def _of_image(path: Path, name: str, size: tuple[int, int], classes: Mapping[str, Sequence[int]]) -> GroundTruth:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except UNREADABLE as error:
        raise InputError(f"{name}: cannot be read as an image; save it again as PNG.") from error
    if (width, height) != size:
        raise InputError(
            f"{name}: is {width} x {height} pixels, the image {size[0]} x {size[1]}; label the image at its own size."
        )
    indices = read_codes(path)
    table = np.full(256, CODES["exclude"], np.uint8)
    table[0], table[IGNORED] = OTHER, UNKNOWN
    table[1 : 1 + len(classes)] = [codes[0] for codes in classes.values()]
    unknown = [int(value) for value in np.unique(indices) if len(classes) < value < IGNORED]
    if unknown:
        raise InputError(
            f"{name}: holds the class index {unknown[0]}; known are 0 to {len(classes)}, and {IGNORED} where "
            "nothing is annotated."
        )
    return GroundTruth(size, shapely.box(0, 0, *size), mask=table[indices])
