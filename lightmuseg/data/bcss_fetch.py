"""BCSS from nothing: its masks and the pixels of its regions, fetched into a folder as the published one is."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import Timeout
from PIL import Image

from lightmuseg.errors import InputError
from lightmuseg.files import make_folder, write_whole
from lightmuseg.lock import locked
from lightmuseg.wsi.images import image_size
from lightmuseg.wsi.model_view import read_box
from lightmuseg.wsi.readers import open_slide

from .bcss_plan import FetchPlan, pool_of, remedy
from .bcss_regions import PublishedRegion
from .bcss_servers import gdc_data, read_published_mask, read_served_region
from .download import Received, Web
from .parallel import Progress


def fetch(plan: FetchPlan, progress: Progress | None = None) -> None:
    """Fetch what a plan of :func:`.bcss_plan.plan_fetch` says.

    A region that fails keeps no other from being fetched. Its picture appears whole, and then its mask, in the size of
    the picture; of the two one that is there already stays as it is. Called again after an interruption it goes on,
    also within a slide.

    Args:
        plan: of the folder as it is now.
        progress: is called with the bytes of pictures and slides.

    Raises:
        InputError: where regions failed, or another process fetches into the folder.
        OSError: where something cannot be written.
    """
    web, tally, faults, in_a_row = Web(), _Tally(progress, plan.bytes_to_fetch), list(plan.faults), 0
    known = [one for one in plan.regions if plan.picture(one).is_file() or one.name in {*plan.served, *plan.slides}]
    with _held(plan.folder), warnings.catch_warnings(), pool_of(web, plan.parallel) as pool:
        # the sizes of pictures are checked against the regions' own, of which some are large
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for done in as_completed([pool.submit(_fetch_region, web, plan, region, tally) for region in known]):
            try:
                done.result()
                in_a_row = 0
            except InputError as error:
                faults.append(str(error))
                in_a_row += 1
            if in_a_row > 2 * plan.parallel:
                web.stopped.set()
                break
    if faults:
        left = sum(not plan.mask(region).is_file() for region in plan.regions)
        raise InputError(
            f"{plan.folder}: {left} of {plan.of} regions could not be fetched; the first fault: {faults[0]} "
            f"{remedy(plan.folder)}"
        )


def _fetch_region(web: Web, plan: FetchPlan, region: PublishedRegion, tally: _Tally) -> None:
    picture, mask = plan.picture(region), plan.mask(region)
    # a picture or a mask that is there may be the user's, and is not changed
    codes = None if mask.is_file() else read_published_mask(web, region)
    if picture.is_file():
        width, height = image_size(picture)
        if not region.has_shape_of((width, height)):
            raise InputError(
                f"{picture}: has {width} x {height} pixels, its region {region.width0} x {region.height0} at level 0, "
                "of another shape; move it away, and it is fetched."
            )
    else:
        if region.name in plan.served:
            pixels = _served_pixels(web, plan, region, tally)
        else:
            pixels = _pixels_of_slide(web, plan, region, tally)
        write_whole(picture, lambda path: Image.fromarray(pixels).save(path))
    size = image_size(picture)
    if codes is not None:
        resized = Image.fromarray(codes).resize(size, Image.Resampling.NEAREST)
        write_whole(mask, lambda path: resized.save(path))
    elif image_size(mask) != size:
        raise InputError(
            f"{mask}: has {' x '.join(map(str, image_size(mask)))} pixels, its picture {size[0]} x {size[1]}; move it "
            "away, and it is fetched."
        )


def _served_pixels(web: Web, plan: FetchPlan, region: PublishedRegion, tally: _Tally) -> np.ndarray:
    arrived = 0

    def received(count: int) -> None:
        nonlocal arrived
        arrived += count
        tally(count)

    pixels = read_served_region(web, region, plan.served[region.name], received)
    tally.corrected(arrived - plan.picture_bytes(region))
    return pixels


def _pixels_of_slide(web: Web, plan: FetchPlan, region: PublishedRegion, tally: Received) -> np.ndarray:
    slide, path = plan.slides[region.name], plan.slide(region)
    is_new = not path.is_file()
    if is_new:
        web.file(gdc_data(slide), path, slide.size, slide.md5, tally)
    with open_slide(path) as reader:
        level0 = reader.levels[0]
        if region.x0 + region.width0 > level0.width or region.y0 + region.height0 > level0.height:
            raise InputError(f"{path}: {level0.width} x {level0.height} pixels do not hold region {region.file_name}.")
        pixels = read_box(reader, region.x0, region.y0, region.width0, region.height0, region.size_at(reader.mpp))
    # a slide that the user had is the user's
    if is_new and not plan.keep_slides:
        path.unlink()
    return pixels


class _Tally:
    """Bytes that arrived, of all threads together."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done, self._lock = progress, total, 0, threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._show()

    def corrected(self, difference: int) -> None:
        """Note that an estimate was too small by so much."""
        with self._lock:
            self._total += difference
            self._show()

    def _show(self) -> None:
        if self._progress is not None and self._total > 0:
            self._progress("fetching", min(max(self._done, 0), self._total), self._total)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    make_folder(folder)
    try:
        with locked(folder / ".fetching.lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"{folder}: another process fetches into it; wait for it or name another folder.") from error
