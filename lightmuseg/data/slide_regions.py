"""Annotated parts of slides as regions of a dataset: pixels as inference sees them, codes from what is drawn.

Frames: ``x0, y0`` are level-0 pixels of the slide, ``xm, ym`` pixels of the slide at the tiles' um/px.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from scipy import ndimage
from skimage.measure import block_reduce

from lightmuseg.areas.annotations import Annotation, read_annotations
from lightmuseg.areas.region_of_interest import counted
from lightmuseg.errors import InputError
from lightmuseg.provenance import sha256_of
from lightmuseg.wsi.identity import content_of, identity_of
from lightmuseg.wsi.model_view import ModelView, whole
from lightmuseg.wsi.readers import SlideReader, kept_open, open_slide

from .annotated_slides import MASKS, AnnotatedSlide
from .bcss import UNANNOTATED, read_mask
from .class_names import codes_of, unknown_among
from .ground_truth import OTHER, UNKNOWN, GroundTruth, drawn_on

logger = logging.getLogger(__name__)

# Around what is annotated, as a share of a tile's side: what lies beside an outline says what it is.
MARGIN = 1 / 8
# Pixels of the side of a region, which is read whole; what is larger becomes several.
MAX_SIDE = 4096
# pixels of the side that are read at once
BLOCK = 1024
# Of a slide's um/px to those of the tiles; a coarser slide is reported.
SCALE_TOLERANCE = 1.05
# of a mask's side when the parts that are annotated are looked for
MAX_OVERVIEW = 1024
UNANNOTATED_IS = ("ignore", "other")
UNKNOWN_REMEDY = (
    "; or say what they mean, such as --classes 'my name=stroma,another=exclude' (objects without a class are "
    "Unclassified)"
)


@dataclass(frozen=True)
class Reading:
    """How annotated slides are read.

    Attributes:
        mpp: um/px of the tiles.
        slide_mpp: um/px of level 0 of slides whose files do not say it, or not one that can be used.
        classes: codes of names of classes beside those of BCSS, as of :func:`.class_names.codes_of`.
        unannotated: one of UNANNOTATED_IS: to leave out what nobody annotated, or to call it other.
        mask_coding: of masks, a key of :data:`.bcss.MASK_CODINGS`.
    """

    mpp: float
    slide_mpp: float | None = None
    classes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    unannotated: str = "ignore"
    mask_coding: str = "bcss"


@dataclass(frozen=True)
class SlideRegion:
    """An annotated rectangle of a slide, as :class:`.bcss.Region` is one in files.

    Attributes:
        annotated: the slide and its annotation.
        reading: how they are read.
        box: xm, ym, width and height at the tiles' um/px.
        slide_mpp: um/px of the slide's level 0.
        content: which files they were, as entries of a manifest.
    """

    annotated: AnnotatedSlide
    reading: Reading
    box: tuple[int, int, int, int]
    slide_mpp: float
    content: tuple[tuple[str, Any], ...]
    image_label: None = None

    @property
    def name(self) -> str:
        """Of the slide, and where in it."""
        return f"{self.annotated.name}_x{self.box[0]}_y{self.box[1]}"

    @property
    def patient(self) -> str:
        """Whose slide it is."""
        return self.annotated.patient

    @property
    def image(self) -> Path:
        """The slide."""
        return self.annotated.slide

    @property
    def mask(self) -> Path:
        """The annotation."""
        return self.annotated.annotation

    @property
    def mpp(self) -> float:
        """um/px of its pixels."""
        return self.reading.mpp

    def entry(self, mpp: float | None) -> dict[str, Any]:
        """What the manifest says of it; ``mpp`` is None, or its own."""
        scale = self.mpp / self.slide_mpp
        x0, y0 = (round(place * scale) for place in self.box[:2])
        return {
            "roi": self.name, "patient": self.patient, "x0": x0, "y0": y0, "mpp": self.mpp,
            "picture_mpp": self.slide_mpp, "width": self.box[2], "height": self.box[3], **dict(self.content),
        }  # fmt: skip

    def read(self, coding: str, mpp: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Its pixels, uint8 [H, W, 3], and BCSS codes, uint8 [H, W]; ``mpp`` as of :meth:`entry`.

        Raises:
            InputError: where the slide or the annotation cannot be read.
        """
        xm, ym, width, height = self.box
        view = ModelView(kept_open(self.image, mpp=self.slide_mpp), self.mpp)
        truth = _whole_truth(self.annotated, self.reading, _size0(view.reader))
        codes = truth.codes(xm * view.scale, ym * view.scale, view.scale, width, height)
        pixels = np.empty((height, width, 3), np.uint8)
        corners = [(x, y) for y in range(0, height, BLOCK) for x in range(0, width, BLOCK)]
        for x, y in corners:
            (block,) = view.read_batch([(xm + x, ym + y)], BLOCK)
            read = whole(block)
            if read is None:
                raise block
            target = pixels[y : y + BLOCK, x : x + BLOCK]
            target[:] = read[: target.shape[0], : target.shape[1]]
        return pixels, codes


def regions_on(annotated: AnnotatedSlide, reading: Reading, tile_size: int) -> tuple[list[SlideRegion], set[str]]:
    """The annotated regions of a slide and the names of its classes; no regions where one of these is not known.

    A region lies around what is annotated, with a margin, and is at least a tile; none overlaps another, and a large
    one is divided.

    Raises:
        InputError: where the slide or the annotation cannot be read.
    """
    classes = dict(reading.classes)
    names: set[str] = set()
    notes = []
    if not _is_mask(annotated):
        annotations, others = _annotations(annotated.annotation)
        names = {class_name for class_name, _ in annotations}
        if unknown_among(names, classes):
            return [], names
        if others:
            notes.append(f"what is no polygon is left out: {counted(others)}.")
    with _opened(annotated.slide, reading.slide_mpp) as reader:
        view = ModelView(reader, reading.mpp)
        area = _truth(annotated, reading, _size0(reader)).area
        boxes = _boxes(annotated, reading, view, tile_size) if area.area > 0 else []
        if not boxes:
            notes.append("holds no annotation.")
        if view.scale < 1 / SCALE_TOLERANCE:
            notes.append(f"its slide is of {reader.mpp:g} um/px, coarser than the tiles, and is enlarged.")
        if reading.slide_mpp is not None and not math.isclose(reader.mpp, reading.slide_mpp, rel_tol=0.001):
            notes.append(
                f"its slide says that it is of {reader.mpp:g} um/px, and --mpp {reading.slide_mpp:g} is not used."
            )
        for note in notes:
            logger.warning(f"{annotated.annotation}: {note}")
        identity = content_of(identity_of(annotated.slide))
        content = {
            "image": annotated.slide.name, "image_bytes": identity["bytes"],
            "image_places_sha256": identity["places_sha256"], "mask": annotated.annotation.name,
            "mask_sha256": sha256_of(annotated.annotation),
        }  # fmt: skip
        return [SlideRegion(annotated, reading, box, reader.mpp, tuple(content.items())) for box in boxes], names


def _boxes(
    annotated: AnnotatedSlide, reading: Reading, view: ModelView, tile_size: int
) -> list[tuple[int, int, int, int]]:
    """The regions of a slide: xm, ym, width and height."""
    truth = _truth(annotated, reading, _size0(view.reader))
    found = []
    for x0, y0, width0, height0 in truth.boxes(MARGIN * tile_size * view.scale, tile_size * view.scale):
        sides = [
            _parts(start0 / view.scale, (start0 + length0) / view.scale, limit)
            for start0, length0, limit in ((x0, width0, view.width), (y0, height0, view.height))
        ]
        found += [(xm, ym, width, height) for ym, height in sides[1] for xm, width in sides[0]]
    return found


def _parts(start: float, end: float, limit: int) -> list[tuple[int, int]]:
    """A side from its first to its last pixel as starts and lengths of at most MAX_SIDE pixels.

    >>> _parts(10.4, 30.2, 25), _parts(0, 5000, 6000)
    ([(10, 15)], [(0, 2500), (2500, 2500)])
    """
    first, last = min(round(start), limit - 1), min(max(round(end), round(start) + 1), limit)
    edges = np.linspace(first, last, 1 + math.ceil((last - first) / MAX_SIDE)).round().astype(int).tolist()
    return [(left, right - left) for left, right in pairwise(edges)]


def _is_mask(annotated: AnnotatedSlide) -> bool:
    return annotated.annotation.suffix.lower() in MASKS


@lru_cache(2)
def _annotations(path: Path) -> tuple[list[Annotation], Counter[str]]:
    others: Counter[str] = Counter()
    return read_annotations(path, str(path), others), others


@lru_cache(2)
def _truth(annotated: AnnotatedSlide, reading: Reading, size0: tuple[int, int]) -> GroundTruth:
    """What is annotated: around it nothing is known."""
    path = annotated.annotation
    slide = shapely.box(0, 0, *size0)
    if _is_mask(annotated):
        mask = read_mask(path, reading.mask_coding)
        height, width = mask.shape
        if abs(height * size0[0] / width - size0[1]) > max(1, size0[0] / width):
            raise InputError(
                f"{path}: is {width} x {height} pixels, no fraction of the {size0[0]} x {size0[1]} of its slide; "
                "export it for the whole slide."
            )
        return GroundTruth(size0, shapely.intersection(_known(mask, size0), slide), mask=mask)
    annotations, _ = _annotations(path)
    codes = codes_of({class_name for class_name, _ in annotations}, dict(reading.classes), str(path))
    areas, polygons = drawn_on([(codes[class_name], polygon) for class_name, polygon in annotations], size0, str(path))
    areas += [polygon for code, polygon in polygons if code not in UNANNOTATED]
    return GroundTruth(size0, shapely.intersection(shapely.union_all(areas), slide), polygons)


def _known(mask: np.ndarray, size0: tuple[int, int]) -> shapely.Geometry:
    """Boxes around the parts of a mask that are annotated, in level-0 pixels."""
    factor = math.ceil(max(mask.shape) / MAX_OVERVIEW)
    known = block_reduce(~np.isin(mask, UNANNOTATED), factor, np.max)
    step_x, step_y = (factor * side0 / side for side0, side in zip(size0, mask.shape[::-1]))
    found = ndimage.find_objects(ndimage.label(known)[0])
    boxes = [shapely.box(x.start * step_x, y.start * step_y, x.stop * step_x, y.stop * step_y) for y, x in found]
    return shapely.union_all(boxes)


@lru_cache(2)
def _whole_truth(annotated: AnnotatedSlide, reading: Reading, size0: tuple[int, int]) -> GroundTruth:
    """What is known: also what nobody annotated, where that is said to be other."""
    truth = _truth(annotated, reading, size0)
    if reading.unannotated == "ignore":
        return truth
    if truth.mask is not None:
        return dataclasses.replace(truth, mask=np.where(truth.mask == UNKNOWN, np.uint8(OTHER), truth.mask))
    return dataclasses.replace(truth, area=shapely.box(0, 0, *truth.size0))


def _opened(slide: Path, mpp: float | None) -> SlideReader:
    try:
        return open_slide(slide)
    except InputError:
        if mpp is None:
            raise
        return open_slide(slide, mpp=mpp)


def _size0(reader: SlideReader) -> tuple[int, int]:
    return reader.levels[0].width, reader.levels[0].height
