"""The pictures in a TIFF, and which of its pages are the levels of each.

A page is a level of another where the file declares it (a SubIFD) or where it shows the same.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from .ome_xml import OmeImage, ome_images
from .tiff import description_of, is_rgb, size_of
from .tiff_likeness import shows_the_same

logger = logging.getLogger(__name__)

# A pyramid has a dozen pages, a stack of layers some more.
MAX_PAGES = 1000
# Pages of one shape that are looked at.
MAX_COMPARED = 24
_KINDS = "label|macro|thumbnail|overview"
# Of a page's description: a line that begins so (Aperio, Philips), or PerkinElmer's XML.
_NOT_TISSUE = re.compile(rf"(?:^|\n)\s*({_KINDS})\b|<ImageType>\s*({_KINDS})\b", re.IGNORECASE)
# Of an image's name in OME-XML, where it begins or ends so.
_NOT_TISSUE_OME = re.compile(rf"^\W*({_KINDS})\b|\b({_KINDS})(?: image)?\W*$", re.IGNORECASE)
# Bits of NewSubfileType: a mask, and what Aperio marks its macro with.
_NO_SLIDE_BITS = 4 | 8
# Pairs of pages whose comparison is remembered.
MAX_KNOWN = 4096
Pages = tuple[tifffile.TiffPage, ...]
_compared: dict[tuple, bool | None] = {}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture in a TIFF, by the name that the file gives it or the number of its first page.

    ``kind`` is "label", "macro", "thumbnail" or such, "" where it can be a slide. ``levels`` are the pages of each
    level from the finest: one, or three of one channel each.
    """

    name: str
    kind: str
    levels: tuple[Pages, ...]
    ome: OmeImage | None = None

    @property
    def base(self) -> tifffile.TiffPage:
        """The finest level's page, or the first of three."""
        return self.levels[0][0]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the finest level."""
        return size_of(self.base)

    @property
    def area(self) -> int:
        """Pixels of the finest level."""
        return math.prod(self.size)


def declared_pictures(path: Path, file: tifffile.TiffFile) -> Iterator[Picture]:
    """The pictures as the file declares them, in the order of their pages; of whatever kind of pixels."""
    pages = [page for page in file.pages if isinstance(page, tifffile.TiffPage)]
    found = _named_by_ome(path, pages)
    if not found and _is_imagej_rgb(pages):
        found = [Picture("page 0", "", (tuple(pages),))]
    taken = {page.offset for picture in found for page in picture.levels[0]}
    found += [
        Picture(f"page {number}", _kind_of(page), ((page,),))
        for number, page in enumerate(pages)
        if page.offset not in taken
    ]
    order = {page.offset: number for number, page in enumerate(pages)}
    for picture in sorted(found, key=lambda picture: order[picture.base.offset]):
        yield from _with_subifds(picture)


def _named_by_ome(path: Path, pages: Sequence[tifffile.TiffPage]) -> list[Picture]:
    """The pictures of OME-XML, each z and t one; an image that contradicts the pages is left out with a warning."""
    text = description_of(pages[0])
    images, uuid = ome_images(path, text) if re.search(r"<(\w+:)?OME\b", text) else ([], "")
    found, taken = [], set()
    for image in images:
        fault, own = "", []
        samples = next((page.samplesperpixel for page in pages if size_of(page) == image.size), 1)
        for (z, t), numbers in image.planes(uuid, samples, len(taken)).items():
            planes = tuple(pages[number] for number in numbers if number < len(pages) and number not in taken)
            if len(set(planes)) < len(numbers):
                fault = "it names pages that are not there, or twice"
            elif any(size_of(page) != image.size for page in planes):
                fault = "it says {} x {} pixels, its pages say others".format(*image.size)
            name = f"{image.name} z {z} t {t}" if (z, t) != (0, 0) else image.name
            in_colours = len(planes) == 3 and is_rgb(planes) and image.is_in_colours
            for one in [planes] if in_colours else [(page,) for page in planes]:
                own.append(Picture(name, _kind(_NOT_TISSUE_OME, image.name) or _kind_of(one[0]), (one,), image))
            taken.update(numbers)
        if fault:
            logger.warning(f"{path}: the OME-XML of {image.name!r} is left out: {fault}.")
            continue
        found += own
    return found


def _is_imagej_rgb(pages: Sequence[tifffile.TiffPage]) -> bool:
    """Whether three grey pages are an ImageJ picture's red, green and blue."""
    alone = len(pages) == 3 and is_rgb(pages) and len(set(map(size_of, pages))) == 1
    return alone and pages[0].description.startswith("ImageJ=") and "channels=3" in pages[0].description.split()


def _kind(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return next(filter(None, found.groups())).lower() if found else ""


def _kind_of(page: tifffile.TiffPage) -> str:
    return _kind(_NOT_TISSUE, page.description) or ("mask or macro" if int(page.subfiletype) & _NO_SLIDE_BITS else "")


def _with_subifds(picture: Picture) -> Iterator[Picture]:
    """A picture with its SubIFDs for levels, and those that are of another shape as pictures of their own."""
    (pages,) = picture.levels
    subs = itertools.islice(zip(*(page.pages or () for page in pages)), MAX_PAGES)
    layers = [sub for sub in subs if all(isinstance(page, tifffile.TiffPage) for page in sub) and is_rgb(sub)]
    base = max([pages, *layers], key=lambda layer: math.prod(size_of(layer[0]))) if is_rgb(pages) else pages
    own: dict[tuple[int, int], Pages] = {}
    for layer in [pages, *layers]:
        if layer is base or (_could_be_level(layer[0], base[0]) and not _kind_of(layer[0])):
            own.setdefault(size_of(layer[0]), layer)
        else:
            yield Picture(f"{picture.name}, SubIFD", _kind_of(layer[0]), (layer,))
    yield replace(picture, levels=_finest_first(own.values()))


def joined_pictures(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures of 8-bit RGB, without those that show the same as a larger one: they are its levels."""
    levels: dict[Picture, list[Pages]] = {}
    compared = 0
    for picture in sorted(pictures, key=lambda picture: -picture.area):
        for whole, own in levels.items():
            sizes = [size_of(pages[0]) for pages in own]
            if picture.kind or whole.kind or picture.size in sizes or not _could_be_level(picture.base, whole.base):
                continue
            if compared == MAX_COMPARED:
                continue
            compared += 1
            wider = (pages for pages in own if pages[0].imagewidth >= picture.size[0])
            nearest = min(wider, key=lambda pages: pages[0].imagewidth)
            same = _same(nearest, picture.levels[0])
            if same is None and nearest is not own[0]:
                same = _same(own[0], picture.levels[0])
            if same:
                own += [pages for pages in picture.levels if size_of(pages[0]) not in sizes]
                break
        else:
            levels[picture] = list(picture.levels)
    return [replace(picture, levels=_finest_first(levels[picture])) for picture in pictures if picture in levels]


def _same(fine: Pages, coarse: Pages) -> bool | None:
    """What :func:`.shows_the_same` says, once for each file: servers and readers in turn open it many times."""
    file = fine[0].parent.filehandle
    state = os.fstat(file.fileno())
    key = (file.path, state.st_ino, state.st_size, state.st_mtime_ns, fine[0].offset, coarse[0].offset)
    with suppress(KeyError):
        return _compared[key]
    # another thread may do the same meanwhile
    same = shows_the_same(fine, coarse)
    if len(_compared) >= MAX_KNOWN:
        _compared.clear()
    _compared[key] = same
    return same


def _finest_first(levels: Iterable[Pages]) -> tuple[Pages, ...]:
    return tuple(sorted(levels, key=lambda pages: -math.prod(size_of(pages[0]))))


def _could_be_level(page: tifffile.TiffPage, base: tifffile.TiffPage) -> bool:
    """Whether a page has the shape of another in fewer pixels; both are in tiles."""
    (width, height), (base_width, base_height) = size_of(page), size_of(base)
    if not (page.is_tiled and base.is_tiled and 0 < width <= base_width and 0 < height <= base_height):
        return False
    # 2%, or what rounding a side to whole pixels makes
    slack = max(0.02 * base_width * height, base_width + base_height)
    return width * height < base_width * base_height and abs(base_width * height - width * base_height) <= slack
