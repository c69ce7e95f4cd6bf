"""The pictures in a TIFF, and which of its pages are the levels of each.

A page is a level of another where the file declares it (a SubIFD) or where it shows the same.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tifffile

from .ome_xml import OmeImage, ome_images
from .tiff import description_of, is_rgb, stated_mpps
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
    """A picture in a TIFF.

    Attributes:
        name: what the file calls it, or the number of its first page.
        kind: "label", "macro", "thumbnail" or such; "" where it can be a slide.
        levels: the pages of each level from the finest: one, or three of one channel each.
        ome: what OME-XML says of it; None where there is none.
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
        return self.base.imagewidth, self.base.imagelength

    @property
    def area(self) -> int:
        """Pixels of the finest level."""
        return self.base.imagewidth * self.base.imagelength

    @property
    def mpps(self) -> tuple[float, float] | None:
        """um/px along x and y as the file states them; None where it does not."""
        return stated_mpps(self.base, self.ome)


def declared_pictures(path: Path, file: tifffile.TiffFile) -> Iterator[Picture]:
    """The pictures as the file declares them, in the order of their pages; of whatever kind of pixels.

    Args:
        path: of the file.
        file: opened.
    """
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
        for (z, t), numbers in image.planes(uuid, _samples(image, pages), len(taken)).items():
            planes = tuple(pages[number] for number in numbers if number < len(pages) and number not in taken)
            if len(set(planes)) < len(numbers):
                fault = "it names pages that are not there, or twice"
            elif any((page.imagewidth, page.imagelength) != image.size for page in planes):
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


def _samples(image: OmeImage, pages: Sequence[tifffile.TiffPage]) -> int:
    """Of the pages of an image: those of the first that is of its size."""
    return next((page.samplesperpixel for page in pages if (page.imagewidth, page.imagelength) == image.size), 1)


def _is_imagej_rgb(pages: Sequence[tifffile.TiffPage]) -> bool:
    """Whether three grey pages are an ImageJ picture's red, green and blue."""
    alone = len(pages) == 3 and is_rgb(pages) and len({(page.imagewidth, page.imagelength) for page in pages}) == 1
    return alone and pages[0].description.startswith("ImageJ=") and "channels=3" in pages[0].description.split()


def _kind(pattern: re.Pattern[str], text: str) -> str:
    said = pattern.search(text)
    return next(filter(None, said.groups())).lower() if said else ""


def _kind_of(page: tifffile.TiffPage) -> str:
    said = _kind(_NOT_TISSUE, page.description)
    return said or ("mask or macro" if int(page.subfiletype) & _NO_SLIDE_BITS else "")


def _with_subifds(picture: Picture) -> Iterator[Picture]:
    """A picture with its SubIFDs for levels, and those that are of another shape as pictures of their own."""
    (pages,) = picture.levels
    subs = list(itertools.islice(zip(*(page.pages or () for page in pages)), MAX_PAGES))
    layers = [pages, *(layer for layer in subs if all(isinstance(page, tifffile.TiffPage) for page in layer))]
    layers = [layer for layer in layers if layer is pages or is_rgb(layer)]
    if layers[0] is not pages or len(layers) == 1:
        yield picture
        return
    base = max(layers, key=lambda layer: layer[0].imagewidth * layer[0].imagelength)
    if not is_rgb(pages):
        base = pages
    own, sizes = [], set()
    for layer in layers:
        size = layer[0].imagewidth, layer[0].imagelength
        if layer is base or (_could_be_level(layer[0], base[0]) and not _kind_of(layer[0])):
            if size not in sizes:
                own.append(layer)
            sizes.add(size)
        else:
            yield Picture(f"{picture.name}, SubIFD", _kind_of(layer[0]), (layer,))
    yield replace(picture, levels=_finest_first(own))


def joined_pictures(pictures: Sequence[Picture]) -> list[Picture]:
    """The pictures, without those that show the same as a larger one: they are its levels.

    Args:
        pictures: of 8-bit RGB, in the order of their pages.
    """
    levels = {id(picture): list(picture.levels) for picture in pictures}
    gone: set[int] = set()
    compared = 0
    by_area = sorted(pictures, key=lambda picture: -picture.area)
    for index, whole in enumerate(by_area):
        if whole.kind or id(whole) in gone:
            continue
        for part in by_area[index + 1 :]:
            own = levels[id(whole)]
            sizes = {(pages[0].imagewidth, pages[0].imagelength) for pages in own}
            if part.kind or id(part) in gone or part.size in sizes or not _could_be_level(part.base, whole.base):
                continue
            if compared == MAX_COMPARED:
                break
            compared += 1
            nearest = min(
                (pages for pages in own if pages[0].imagewidth >= part.size[0]), key=lambda pages: pages[0].imagewidth
            )
            same = _same(nearest, part.levels[0])
            if same is None and nearest is not own[0]:
                same = _same(own[0], part.levels[0])
            if same:
                own += [pages for pages in part.levels if (pages[0].imagewidth, pages[0].imagelength) not in sizes]
                gone.add(id(part))
    return [
        replace(picture, levels=_finest_first(levels[id(picture)])) for picture in pictures if id(picture) not in gone
    ]


def _same(fine: Pages, coarse: Pages) -> bool | None:
    """What :func:`.shows_the_same` says, asked once for each file: servers and readers in turn open it many times."""
    file = fine[0].parent.filehandle
    state = os.fstat(file.fileno())
    key = (file.path, state.st_ino, state.st_size, state.st_mtime_ns, fine[0].offset, coarse[0].offset)
    try:
        return _compared[key]
    except KeyError:
        # another thread may do the same meanwhile
        same = shows_the_same(fine, coarse)
    if len(_compared) >= MAX_KNOWN:
        _compared.clear()
    _compared[key] = same
    return same


def _finest_first(levels: Sequence[Pages]) -> tuple[Pages, ...]:
    return tuple(sorted(levels, key=lambda pages: -pages[0].imagewidth * pages[0].imagelength))


def _could_be_level(page: tifffile.TiffPage, base: tifffile.TiffPage) -> bool:
    """Whether a page has the shape of another in fewer pixels; both are in tiles."""
    width, height = page.imagewidth, page.imagelength
    if not (page.is_tiled and base.is_tiled and 0 < width <= base.imagewidth and 0 < height <= base.imagelength):
        return False
    # 2%, or what rounding a side to whole pixels makes
    slack = max(0.02 * base.imagewidth * height, base.imagewidth + base.imagelength)
    return width * height < base.imagewidth * base.imagelength and (
        abs(base.imagewidth * height - width * base.imagelength) <= slack
    )
