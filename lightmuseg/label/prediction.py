"""The network's answer on a rectangle of a slide or tile, by the slide engine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import affinity

from lightmuseg.areas.area import Area, RegionOfInterest, WholeSlide
from lightmuseg.areas.tissue import tissue_of
from lightmuseg.classes import UNREAD
from lightmuseg.engine.pipeline import segment_slide
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import RowStore
from lightmuseg.errors import InputError
from lightmuseg.outputs.regions import TOLERANCE, regions
from lightmuseg.progress import bar_of
from lightmuseg.slides.damage import Damage, nothing_read
from lightmuseg.wsi.model_view import ModelView, ViewPart
from lightmuseg.wsi.readers import SlideReader
from lightmuseg.wsi.readers.opening import open_slide

from .bundle_network import BundleNetwork

# model pixels to one of the map
FACTOR = 2
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
        """What a request's ``location`` and ``size`` ask for, as far as it is on the slide; no size is everything.

        Raises:
            InputError: where they are no pairs of whole numbers, or nothing of it is on the slide.
        """
        (x0, y0), (width0, height0) = (_pair(request, name) for name in ("location", "size"))
        if (width0, height0) == (0, 0):
            return cls(0, 0, level0_width, level0_height)
        left, upper, right, lower = (
            max(0, x0),
            max(0, y0),
            min(x0 + width0, level0_width),
            min(y0 + height0, level0_height),
        )
        if right <= left or lower <= upper:
            raise InputError(
                f"location {[x0, y0]}, size {[width0, height0]}: is not on the slide of {level0_width} x "
                f"{level0_height} level-0 pixels; give a region on it."
            )
        return cls(left, upper, right - left, lower - upper)

    def polygon(self, dx0: float = 0.0, dy0: float = 0.0) -> shapely.Polygon:
        """The rectangle, moved."""
        return affinity.translate(
            shapely.box(self.x0, self.y0, self.x0 + self.width0, self.y0 + self.height0), dx0, dy0
        )


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
        class_map: as the slide engine's writers take it; 0 outside of the box.
        corner: the map's left upper corner, in its own pixels from that of the slide.
        unread_tiles: of the network, of which a part or all could not be read; no class is there.
    """

    box: Box
    class_map: RowStore
    corner: tuple[int, int]
    unread_tiles: int = 0

    def polygons(self, min_area0: float = 0.0) -> Iterator[tuple[str, shapely.Polygon]]:
        """Class name and outline, in level-0 pixels of the slide, of every region of at least ``min_area0`` of them."""
        names = dict(enumerate(self.class_map.class_names, start=1))
        x0, y0 = (place * self.class_map.downsample for place in self.corner)
        for value, polygon in regions(self.class_map, TOLERANCE):
            if value in names and polygon.area >= min_area0:
                yield names[value], affinity.translate(polygon, x0, y0)

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
        step = self.class_map.downsample
        columns, rows = (
            ((start + (np.arange(count) + 0.5) * downsample) / step).astype(int) - first
            for start, count, first in zip((self.box.x0, self.box.y0), (width, height), self.corner)
        )
        columns, rows = np.minimum(columns, classes.shape[1] - 1), np.minimum(rows, classes.shape[0] - 1)
        chosen = classes[rows[:, None], columns]
        return np.where(chosen == UNREAD, np.uint8(0), chosen)


def opened(path: Path, network: BundleNetwork) -> SlideReader:
    """A slide or picture; one that does not say its um/px is taken to have the network's."""
    return open_slide(path, default_mpp=network.mpp)


@contextmanager
def predicted(path: Path, network: BundleNetwork, request: Mapping[str, Any]) -> Iterator[Prediction]:
    """Segment what a request asks for, by the tiles and to the bit as ``lightmuseg segment`` does.

    Args:
        path: of a slide or picture.
        network: the network.
        request: may have ``location`` and ``size`` in level-0 pixels. Of everything of a slide with levels only tissue
            is segmented.

    Raises:
        InputError: where nothing of it can be read.
    """
    with opened(path, network) as reader, tempfile.TemporaryDirectory() as folder:
        level0 = reader.levels[0]
        box = Box.of(request, level0.width, level0.height)
        view = ModelView(reader, network.mpp)
        everything = (box.width0, box.height0) == (level0.width, level0.height)
        area: Area = WholeSlide(level0.width, level0.height)
        if not everything:
            area = RegionOfInterest(box.polygon())
        elif len(reader.levels) > 1:
            area = tissue_of(reader)
        runtime = network.runtime
        plan = plan_tiles((view.width, view.height), view.scale, area, runtime.tile_size, network.overlap, FACTOR)
        seen: ModelView | ViewPart = view
        corner = 0, 0
        if not everything:
            plan, corner = plan.part()
            seen = ViewPart(view, *corner)
            area = RegionOfInterest(box.polygon(-corner[0] * view.scale, -corner[1] * view.scale))
        store = RowStore(Path(folder), plan, network.mpp * FACTOR, view.scale * FACTOR, network.class_names)
        with bar_of(path.name) as progress:
            segment_slide(seen, area, plan, runtime, store, network.batch_size, False, progress)
        damage = Damage.of(store)
        counts = [row["counts"] for row in store.records()]
        if any(one["unread"] for one in counts) and not any(sum(one["analysed"]) for one in counts):
            raise nothing_read(path, damage.places)
        yield Prediction(box, store, (corner[0] // FACTOR, corner[1] // FACTOR), damage.tiles)
