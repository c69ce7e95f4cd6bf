"""An annotator's label of an image, pixel by pixel, as BCSS codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from PIL import Image
from rasterio.features import rasterize
from shapely import affinity

from lightmuseg.classes import IGNORED
from lightmuseg.data.bcss import CODES
from lightmuseg.errors import InputError
from lightmuseg.wsi.images import read_codes
from lightmuseg.wsi.readers import SlideReader

from .annotations import read_annotations
from .prediction import Box

OTHER, UNKNOWN, EXCLUDED = CODES["other"], CODES["outside_roi"], CODES["exclude"]
# Polygons of this class are no tissue: all that is in them was annotated. QuPath has the class "Region*".
REGION = "region"
# Names of QuPath's own classes and of common use.
ALIASES = {
    "background": "other",
    "ignore": "exclude",
    "immune cells": "lymphocytic_infiltrate",
    "lymphocytes": "lymphocytic_infiltrate",
    "necrosis": "necrosis_or_debris",
}
POLYGONS, IMAGES = (".xml", ".geojson", ".json"), (".png", ".tif", ".tiff")


def code_of(class_name: str, classes: Mapping[str, Sequence[int]]) -> int | None:
    """The BCSS code of a class's name as pathologists' programs write it; None for an annotated region.

    Args:
        class_name: one of ``classes``, of BCSS or of QuPath, in any case.
        classes: codes of the network's classes.

    Raises:
        InputError: for a name of no known class.
    """
    plain = class_name.strip().rstrip("*").strip().casefold()
    if plain == REGION:
        return None
    codes = {name.casefold(): code for name, code in CODES.items()}
    codes |= {name.casefold(): of_class[0] for name, of_class in classes.items()}
    for name in (plain, ALIASES.get(plain, plain.replace(" ", "_"))):
        if name in codes:
            return codes[name]
    raise InputError(
        f"class {class_name[:80]!r}: is not known; use Tumor, Stroma, Lymphocytic infiltrate, Necrosis, Other, Ignore* "
        "or another class of BCSS, or Region* around what is annotated."
    )


@dataclass(frozen=True)
class GroundTruth:
    """A label of an image.

    Attributes:
        area: what is annotated, in level-0 pixels.
        polygons: code and outline in level-0 pixels, the largest first, later ones over earlier ones.
        indices: of a label image instead: codes, uint8 [H, W], at level 0.
    """

    area: shapely.Geometry
    polygons: tuple[tuple[int, shapely.Polygon], ...] = ()
    indices: np.ndarray | None = None

    def codes(self, x0: float, y0: float, step0: float, width: int, height: int) -> np.ndarray:
        """BCSS codes, uint8 [height, width], at the pixels of a grid; 0 where nothing is annotated.

        Args:
            x0, y0: the grid's left upper corner in level-0 pixels.
            step0: side of its pixels in level-0 pixels.
            width, height: of the grid.
        """
        if self.indices is not None:
            xs, ys = (((np.arange(n) + 0.5) * step0 + start).astype(int) for n, start in ((width, x0), (height, y0)))
            rows, columns = self.indices.shape
            codes = self.indices[np.minimum(ys, rows - 1)[:, None], np.minimum(xs, columns - 1)]
            codes[ys >= rows], codes[:, xs >= columns] = UNKNOWN, UNKNOWN
            return codes
        grid = shapely.box(x0, y0, x0 + width * step0, y0 + height * step0)
        shapes = [(self.area, OTHER), *((self._within_area(polygon), code) for code, polygon in self.polygons)]
        drawn = [(shape, code) for shape, code in shapes if shape.intersects(grid)]
        if not drawn:
            return np.full((height, width), UNKNOWN, np.uint8)
        place = Affine(step0, 0, x0, 0, step0, y0)
        return rasterize(drawn, out_shape=(height, width), transform=place, fill=UNKNOWN, dtype=np.uint8)

    def _within_area(self, polygon: shapely.Polygon) -> shapely.Geometry:
        return polygon if self.area.contains(polygon) else shapely.intersection(polygon, self.area)

    @cached_property
    def boxes(self) -> list[Box]:
        """Rectangles, one around each part of the area."""
        parts = [shapely.box(*part.bounds) for part in shapely.get_parts(self.area) if part.area > 0]
        bounds = shapely.bounds(shapely.get_parts(shapely.union_all(parts)))
        starts, ends = np.floor(bounds[:, :2]).astype(int), np.ceil(bounds[:, 2:]).astype(int)
        return [Box(*corner) for corner in np.hstack([starts, ends - starts]).tolist()]


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
    slide = shapely.box(0, 0, level0.width, level0.height)
    around = affinity.scale(slide, 3, 3)
    areas, polygons = [], []
    for class_name, polygon in read_annotations(path, name):
        code = code_of(class_name, classes)
        # drawn over the image's edge perhaps, but not farther than the image is large
        if not (polygon.intersects(slide) and around.contains(shapely.box(*polygon.bounds))):
            raise InputError(
                f"{name}: holds a polygon within {[round(end, 1) for end in polygon.bounds]}, beside or far around the "
                f"image of {level0.width} x {level0.height} pixels; annotate the image it belongs to."
            )
        if code is None:
            areas.append(polygon)
        else:
            polygons.append((code, polygon))
    if info.get("bbox"):
        areas.append(_bbox(info["bbox"], reader))
    if not areas and reader.backend == "image":
        areas.append(slide)
    areas = areas or [polygon for _, polygon in polygons]
    if not areas:
        raise InputError(f"{name}: holds no annotation; draw some, or Region* around what is free of them.")
    polygons.sort(key=lambda one: -one[1].area)
    return GroundTruth(shapely.intersection(shapely.union_all(areas), slide), tuple(polygons))


def _bbox(value: Any, reader: SlideReader) -> shapely.Polygon:
    if not (isinstance(value, list) and len(value) == 4 and all(type(number) is int for number in value)):
        raise InputError(f"bbox {str(value)[:80]}: is not [x, y, width, height] in level-0 pixels; leave it out.")
    return Box.on_slide((value[0], value[1]), (value[2], value[3]), reader).polygon()


def _of_image(path: Path, name: str, size: tuple[int, int], classes: Mapping[str, Sequence[int]]) -> GroundTruth:
    try:
        with Image.open(path) as image:
            if image.size != size:
                raise InputError(
                    f"{name}: is {image.size[0]} x {image.size[1]} pixels, the image {size[0]} x {size[1]}; label the "
                    "image at its own size."
                )
    except (OSError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: cannot be read as an image; save it again as PNG.") from error
    indices = read_codes(path)
    table = np.full(256, EXCLUDED, np.uint8)
    table[0], table[IGNORED] = OTHER, UNKNOWN
    table[1 : 1 + len(classes)] = [codes[0] for codes in classes.values()]
    unknown = [int(value) for value in np.unique(indices) if len(classes) < value < IGNORED]
    if unknown:
        raise InputError(
            f"{name}: holds the class index {unknown[0]}; known are 0 to {len(classes)}, and {IGNORED} where "
            "nothing is annotated."
        )
    return GroundTruth(shapely.box(0, 0, *size), indices=table[indices])
