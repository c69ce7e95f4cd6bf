"""The network's answer on a rectangle of a slide or tile, by the slide engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely import affinity

from lightmuseg.areas.annotations import Annotation
from lightmuseg.areas.area import Area, RegionOfInterest, WholeSlide
from lightmuseg.areas.glass import without_glass
from lightmuseg.areas.tissue import seen, tissue_of
from lightmuseg.classes import UNREAD
from lightmuseg.engine.pipeline import fill_rows
from lightmuseg.engine.plan import plan_tiles
from lightmuseg.engine.rows import RowStore
from lightmuseg.errors import InputError
from lightmuseg.outputs.regions import TOLERANCE, regions
from lightmuseg.slides.damage import Damage, nothing_read
from lightmuseg.wsi.model_view import ModelView
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
    def on_slide(cls, location: tuple[int, int], size: tuple[int, int], reader: SlideReader) -> Box:
        """The part on the slide of a rectangle in level-0 pixels; a size of (0, 0) is the whole slide.

        Raises:
            InputError: where nothing of it is on the slide.
        """
        limits = reader.levels[0].width, reader.levels[0].height
        if size == (0, 0):
            return cls(0, 0, *limits)
        left, upper = (max(0, start) for start in location)
        right, lower = (min(start + side, limit) for start, side, limit in zip(location, size, limits))
        if right <= left or lower <= upper:
            raise InputError(
                f"location {list(location)}, size {list(size)}: is not on the slide of {limits[0]} x {limits[1]} "
                "level-0 pixels; give a region on it."
            )
        return cls(left, upper, right - left, lower - upper)

    def polygon(self, dx0: float = 0.0, dy0: float = 0.0) -> shapely.Polygon:
        """The rectangle, moved by so many level-0 pixels."""
        x0, y0 = self.x0 + dx0, self.y0 + dy0
        return shapely.box(x0, y0, x0 + self.width0, y0 + self.height0)


@dataclass(frozen=True)
class Prediction:
    """The class map of a box, for as long as its folder is there.

    Attributes:
        box: level-0 pixels.
        downsample: level-0 pixels to one of the label image.
        class_map: as the slide engine's writers take it; 0 outside of the box.
        corner: the map's left upper corner, in its own pixels from that of the slide.
        picture: which picture of a TIFF the slide is and what the others are; None of other files.
        unread_tiles: of the network, of which a part or all could not be read; no class is there.
    """

    box: Box
    downsample: float
    class_map: RowStore
    corner: tuple[int, int]
    picture: dict[str, Any] | None
    unread_tiles: int

    def annotations(self, min_area0: float = 0.0) -> Iterator[Annotation]:
        """Every region of at least ``min_area0`` level-0 pixels, with its class."""
        names = dict(enumerate(self.class_map.class_names, start=1))
        x0, y0 = (place * self.class_map.downsample for place in self.corner)
        for value, polygon in regions(self.class_map, TOLERANCE):
            if value in names and polygon.area >= min_area0:
                yield Annotation(names[value], affinity.translate(polygon, x0, y0))

    def image(self) -> np.ndarray:
        """Class indices, uint8 [height, width], at the wanted level.

        Raises:
            InputError: where that is more than 100 megapixels.
        """
        width, height = (max(1, round(size / self.downsample)) for size in (self.box.width0, self.box.height0))
        if width * height > MAX_PIXELS:
            raise InputError(
                f"size {[self.box.width0, self.box.height0]}: its label image would have {width} x {height} pixels, "
                f"more than {MAX_PIXELS / 1e6:.0f} megapixels; ask for a coarser level or for polygons."
            )
        classes = np.concatenate(list(self.class_map.bands(1024)))
        columns, rows = (
            (((start0 + (np.arange(count) + 0.5) * self.downsample) / self.class_map.downsample).astype(int) - first)
            .clip(max=limit - 1)
            for start0, count, first, limit in zip(
                (self.box.x0, self.box.y0), (width, height), self.corner, classes.shape[::-1]
            )
        )  # fmt: skip
        chosen = classes[rows[:, None], columns]
        return np.where(chosen == UNREAD, np.uint8(0), chosen)


def opened(path: Path, network: BundleNetwork) -> SlideReader:
    """A slide or picture; one that does not give its um/px is taken to have the network's."""
    return open_slide(path, default_mpp=network.mpp)


@contextmanager
def predicted(
    path: Path,
    network: BundleNetwork,
    location: tuple[int, int] = (0, 0),
    size: tuple[int, int] = (0, 0),
    level: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Prediction]:
    """Segment a rectangle, by the tiles and to the bit as ``lightmuseg segment`` does.

    Args:
        path: of a slide or picture.
        network: the network.
        location, size: of the rectangle, (x, y) and (width, height) in level-0 pixels. A size of (0, 0) is everything;
            of a slide with levels only tissue is segmented then.
        level: of the slide, the resolution of the label image.
        progress: is called with the tiles that are done and all tiles.

    Raises:
        InputError: for a level or rectangle that the slide has not, and where nothing of it can be read.
    """
    with opened(path, network) as reader, tempfile.TemporaryDirectory() as folder:
        if not 0 <= level < len(reader.levels):
            raise InputError(f"level {level}: the image has levels 0 to {len(reader.levels) - 1}.")
        box = Box.on_slide(location, size, reader)
        whole = Box.on_slide((0, 0), (0, 0), reader)
        view = ModelView(reader, network.mpp)
        scale, runtime, corner = view.scale, network.runtime, (0, 0)
        area: Area = WholeSlide(whole.width0, whole.height0)
        tissue: Area | None = None
        if box != whole:
            area = RegionOfInterest(box.polygon())
        elif len(reader.levels) > 1:
            picture = seen(reader)
            area = coarse = tissue_of(reader, picture)
            tissue = without_glass(reader, area, coarse, picture)
        plan = plan_tiles((view.width, view.height), scale, area, runtime.tile_size, network.overlap, FACTOR)
        if box != whole:
            plan, corner = plan.part()
            view = view.shifted(*corner)
            area = RegionOfInterest(box.polygon(-corner[0] * scale, -corner[1] * scale))
        store = RowStore(Path(folder), plan, network.mpp * FACTOR, scale * FACTOR, network.class_names)
        fill_rows(view, area, plan, runtime, store, network.batch_size, False, progress, tissue)
        damage = Damage.of(store)
        if damage.total:
            raise nothing_read(path, damage.places)
        corner = corner[0] // FACTOR, corner[1] // FACTOR
        yield Prediction(box, reader.levels[level].downsample, store, corner, reader.picture, damage.tiles)
