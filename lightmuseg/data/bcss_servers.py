"""The servers that have BCSS's masks, the slides of TCGA, and single regions of these.

- figshare, where BCSS's authors publish the masks, at the scan's own um/px.
- The Genomic Data Commons: https://docs.gdc.cancer.gov/API/Users_Guide/Search_and_Retrieval and .../Downloading_Files.
- A Digital Slide Archive, which is Girder with large_image: https://girder.github.io/large_image. BCSS's authors cut
  the published regions from one.

Nothing that a server says is part of a path or an address unless it has been checked here.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import numpy as np
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.wsi.images import UNREADABLE, as_codes, as_rgb

from .bcss import CODES
from .bcss_regions import REGION_MPP, PublishedRegion
from .download import NoAnswer, Received, Web, unheeded

# The environment variables that name a mirror of each, and their own addresses.
GDC = "LIGHTMUSEG_GDC", "https://api.gdc.cancer.gov"
REGION_SERVER = "LIGHTMUSEG_REGION_SERVER", "https://demo.kitware.com/histomicstk/api/v1"
FIGSHARE = "LIGHTMUSEG_FIGSHARE", "https://ndownloader.figshare.com"
# BCSS's largest mask has 126 million pixels, and its largest picture 88 million.
MOST_MASK_BYTES, MOST_PICTURE_BYTES = 100_000_000, 400_000_000
MOST_SLIDE_BYTES = 20_000_000_000


@dataclass(frozen=True)
class GdcSlide:
    """A slide at the GDC: its identifier, its bytes and their MD5."""

    file_id: str
    size: int
    md5: str


@dataclass(frozen=True)
class ServedSlide:
    """A slide on a region server: its identifier and um/px at level 0."""

    item: str
    mpp: float


def address(server: tuple[str, str]) -> str:
    """Of one of the servers above, without a slash at its end.

    Raises:
        InputError: where the environment names what is none.
    """
    url = os.environ.get(server[0]) or server[1]
    try:
        is_web = urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname
    except ValueError:
        is_web = False
    if not is_web:
        raise InputError(f"{server[0]}={url[:200]}: is no address of a web server; give one such as {server[1]}.")
    return url.rstrip("/")


def read_published_mask(web: Web, region: PublishedRegion) -> np.ndarray:
    """The codes of a region's mask, uint8 [H, W], at the um/px that it is published at.

    Raises:
        InputError: where it cannot be fetched, or is no mask of this region.
    """
    url = f"{address(FIGSHARE)}/files/{region.mask}"

    def checked(size: tuple[int, int]) -> None:
        if not region.has_shape_of(size) or size[0] > region.width0 + 1:
            raise InputError(f"has {size[0]} x {size[1]} pixels, its region {region.width0} x {region.height0}.")

    codes = _pixels(web.content(url, MOST_MASK_BYTES), as_codes, checked, f"{url}, the mask of {region.name}")
    if codes.max(initial=0) >= CODES["not_tumor"]:
        raise InputError(f"{url}, the mask of {region.name}: holds the unknown code {codes.max()}; known are 0 to 21.")
    return codes


def gdc_slides(web: Web, regions: Sequence[PublishedRegion]) -> dict[str, GdcSlide | InputError]:
    """The slides of regions at the GDC, or why there is none, by the regions' names.

    Raises:
        NoAnswer: where the GDC cannot be asked.
    """
    url = f"{address(GDC)}/files"
    wanted = {
        "cases.submitter_id": sorted({region.patient for region in regions}),
        "data_format": ["SVS"],
        "experimental_strategy": ["Diagnostic Slide"],
    }
    query = {
        "filters": {
            "op": "and",
            "content": [{"op": "in", "content": {"field": name, "value": wanted[name]}} for name in wanted],
        },
        "fields": "file_id,file_name,file_size,md5sum",
        "format": "JSON",
        "size": "5000",
    }
    answer = web.json(url, query)
    try:
        hits = [dict(hit) for hit in answer["data"]["hits"]]
    except (TypeError, KeyError, ValueError) as error:
        raise NoAnswer(f"{url}: answers no list of files (data, hits).") from error
    return {region.name: _slide_among(hits, region, url) for region in regions}


def _slide_among(hits: list[dict[str, Any]], region: PublishedRegion, url: str) -> GdcSlide | InputError:
    # the name up to the identifier behind it, which another version of a slide has too
    start = region.slide.partition(".")[0]
    found = [hit for hit in hits if str(hit.get("file_name")).lower() == region.slide.lower()]
    found = found or [hit for hit in hits if str(hit.get("file_name")).startswith(f"{start}.")]
    if len(found) != 1:
        names = ", ".join(sorted(str(hit["file_name"])[:100] for hit in found)[:3]) or "none"
        return InputError(f"{url}: has not exactly one slide {region.slide}, found {names}.")
    file_id, size, md5 = (found[0].get(name) for name in ("file_id", "file_size", "md5sum"))
    if not (
        isinstance(file_id, str)
        and re.fullmatch(r"[0-9a-fA-F-]{36}", file_id)
        and isinstance(md5, str)
        and re.fullmatch(r"[0-9a-fA-F]{32}", md5)
        and type(size) is int
        and 0 < size <= MOST_SLIDE_BYTES
    ):
        return InputError(f"{url}: says of {region.slide} no file_id, md5sum and file_size that can be used.")
    return GdcSlide(file_id, size, md5.lower())


def gdc_data(slide: GdcSlide) -> str:
    """The address of a slide's bytes."""
    return f"{address(GDC)}/data/{slide.file_id}"


def served_slide(web: Web, region: PublishedRegion) -> ServedSlide:
    """A region's slide on the region server, by its identifier, or where that is another one's by its name.

    Raises:
        InputError: where the server cannot be asked, does not have it, or does not know its um/px.
    """
    server = address(REGION_SERVER)
    item = _item(web, server, region)
    url = f"{server}/item/{item}/tiles"
    about = web.json(url)
    mm = about.get("mm_x") if isinstance(about, dict) else None
    if not isinstance(mm, float) or not math.isfinite(mm) or not 0.00005 <= mm <= 0.005:
        raise InputError(f"{url}: says of {region.slide} no um per pixel that can be used (mm_x {str(mm)[:80]}).")
    return ServedSlide(item, 1000 * mm)


def _item(web: Web, server: str, region: PublishedRegion) -> str:
    try:
        known = web.json(f"{server}/item/{region.item}")
        if isinstance(known, dict) and known.get("name") == region.slide:
            return region.item
    except NoAnswer as error:
        # another server has other identifiers
        if error.status not in (400, 404):
            raise
    query = urlencode({"q": f'"{region.slide}"', "types": '["item"]', "mode": "text"})
    answer = web.json(f"{server}/resource/search?{query}")
    items = answer.get("item") if isinstance(answer, dict) else None
    for found in items if isinstance(items, list) else []:
        if isinstance(found, dict) and found.get("name") == region.slide:
            return quote(str(found.get("_id")), safe="")
    raise InputError(f"{server}: has no slide {region.slide}.")


def read_served_region(
    web: Web, region: PublishedRegion, slide: ServedSlide, received: Received = unheeded
) -> np.ndarray:
    """A region's pixels, uint8 [H, W, 3], as the region server cuts them at BCSS's true um/px.

    Raises:
        InputError: where they cannot be fetched, or are of another size.
    """
    mm = f"{REGION_MPP / 1000:g}"
    place = {
        "left": region.x0, "top": region.y0, "right": region.x0 + region.width0, "bottom": region.y0 + region.height0,
        "units": "base_pixels", "mm_x": mm, "mm_y": mm, "encoding": "PNG",
    }  # fmt: skip
    url = f"{address(REGION_SERVER)}/item/{slide.item}/tiles/region"
    wanted = region.size_at(slide.mpp)

    def checked(size: tuple[int, int]) -> None:
        if max(abs(side - other) for side, other in zip(size, wanted)) > 1:
            raise InputError(f"has {size[0]} x {size[1]} pixels, not {wanted[0]} x {wanted[1]}.")

    content = web.content(f"{url}?{urlencode(place)}", MOST_PICTURE_BYTES, received)
    return _pixels(content, as_rgb, checked, f"{url}, the picture of {region.name}")


def _pixels(
    content: bytes, convert: Callable[[Image.Image], Image.Image], check: Callable[[tuple[int, int]], None], name: str
) -> np.ndarray:
    """The pixels of a PNG whose size is checked before it is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            check(image.size)
            return np.asarray(convert(image))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except UNREADABLE as error:
        raise InputError(f"{name}: is no PNG that can be read ({error}).") from error
