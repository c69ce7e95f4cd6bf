"""The network's answer on a rectangle of a slide or tile, by the slide engine."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from PIL import Image
from shapely import affinity

from lightmuseg.errors import InputError
from lightmuseg.slides.area import Area, WholeSlide
from lightmuseg.slides.engine import segment_slide
from lightmuseg.slides.plan import plan_tiles
from lightmuseg.slides.readers import SlideReader
from lightmuseg.slides.readers.opening import open_slide
from lightmuseg.slides.rows import RowStore
from lightmuseg.slides.tissue import find_tissue
from lightmuseg.slides.view import ModelView, ViewPart, thumbnail
from lightmuseg.slides.writers.regions import TOLERANCE, regions

from .network import BundleNetwork

# model pixels to one of the map
FACTOR = 2
TISSUE_MPP, TISSUE_SIDE = 8.0, 12_000
# of a label image, which is made in memory
MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 pixels."""

    x0: int
    y0: int
    width0: int
    height0: int

    @classmethod
    def of(cls, request: Mapping[str, Any], level0_width: int, level0_height: int) -> Box:
        """What a request's ``location`` and ``size`` ask for; no size, or 0 x 0, is everything.

        Raises:
            InputError: where they are no pairs of whole numbers, or lie outside the slide, even in part.
        """
        location, size = (_pair(request, name) for name in ("location", "size"))
        if size == (0, 0):
            location, size = (0, 0), (level0_width, level0_height)
        box = cls(*location, *size)
        inside = box.x0 + box.width0 <= level0_width and box.y0 + box.height0 <= level0_height
        if min(size) < 1 or min(location) < 0 or not inside:
            raise InputError(
                f"location {list(location)}, size {list(size)}: is not on the slide of {level0_width} x "
                f"{level0_height} level-0 pixels; give a region on it."
            )
        return box


def _pair(request: Mapping[str, Any], name: str) -> tuple[int, int]:
    value = request.get(name) or (0, 0)
    if not (isinstance(value, (list, tuple)) and len(value) == 2 and all(type(number) is int for number in value)):
        raise InputError(f"{name} {str(value)[:80]}: is no pair of whole numbers; give [x, y] in level-0 pixels.")
    return value[0], value[1]


@dataclass(frozen=True)
class Prediction:
    """The class map of a box, for as long as its folder is there.

    Attributes:
        box: level-0 pixels.
        class_map: as the slide engine's writers take it, from the box's corner.
        mpp0: um/px of level 0.
    """

    box: Box
    class_map: RowStore
    mpp0: float

    def polygons(self, min_area0: float = 0.0) -> Iterator[tuple[str, shapely.Polygon]]:
        """Class name and outline, in level-0 pixels of the slide, of every region of at least ``min_area0`` of them."""
        names = dict(enumerate(self.class_map.class_names, start=1))
        for value, polygon in regions(self.class_map, TOLERANCE):
            if value in names and polygon.area >= min_area0:
                yield names[value], affinity.translate(polygon, self.box.x0, self.box.y0)

    def image(self, downsample: float) -> np.ndarray:
        """Class indices, uint8 [height, width], at ``downsample`` level-0 pixels to one of the image's.

        Raises:
            InputError: where that is more than 100 megapixels.
        """
        width, height = (max(1, round(size / downsample)) for size in (self.box.width0, self.box.height0))
        if width * height > MAX_PIXELS:
            raise InputError(
                f"size {[self.box.width0, self.box.height0]}: its label image would have {width} x {height} pixels, "
                f"more than {MAX_PIXELS / 1e6:.0f} megapixels; ask for a coarser level or for polygons."
            )
        classes = np.concatenate(list(self.class_map.bands(1024)))
        # the map's last pixels may reach over the box
        box = 0, 0, self.box.width0 / self.class_map.downsample, self.box.height0 / self.class_map.downsample
        box = *box[:2], min(box[2], classes.shape[1]), min(box[3], classes.shape[0])
        return np.asarray(Image.fromarray(classes).resize((width, height), Image.Resampling.NEAREST, box=box))


def opened(path: Path, network: BundleNetwork) -> SlideReader:
    """A slide or picture; one that does not say its um/px is taken to have the network's."""
    return open_slide(path, default_mpp=network.mpp)


@contextmanager
def predicted(path: Path, network: BundleNetwork, request: Mapping[str, Any]) -> Iterator[Prediction]:
    """Segment what a request asks for.

    Args:
        path: of a slide or picture.
        network: the network.
        request: may have ``location`` and ``size`` in level-0 pixels. Of everything of a slide with levels only tissue
            is segmented.
    """
    with opened(path, network) as reader, tempfile.TemporaryDirectory() as folder:
        level0 = reader.levels[0]
        box = Box.of(request, level0.width, level0.height)
        view = ModelView(reader, network.mpp)
        part = part_of(view, box)
        area: Area = WholeSlide(math.ceil(part.width * view.scale), math.ceil(part.height * view.scale))
        if len(reader.levels) > 1 and (box.width0, box.height0) == (level0.width, level0.height):
            pixels, step0 = thumbnail(reader, TISSUE_MPP, TISSUE_SIDE)
            area = find_tissue(pixels, step0, reader.mpp)
        plan = plan_tiles(
            (part.width, part.height), view.scale, area, network.runtime.tile_size, network.overlap, FACTOR
        )
        store = RowStore(Path(folder), plan, network.mpp * FACTOR, view.scale * FACTOR, network.class_names)
        segment_slide(part, area, plan, network.runtime, store, network.batch_size, False)
        yield Prediction(box, store, reader.mpp)


def part_of(view: ModelView, box: Box) -> ViewPart:
    """The model's pixels that a box of level-0 pixels has a part of, from the nearest corner."""
    xm, ym = (round(place / view.scale) for place in (box.x0, box.y0))
    width, height = (max(1, math.ceil(size / view.scale - 1e-6)) for size in (box.width0, box.height0))
    return ViewPart(view, xm, ym, width, height)
