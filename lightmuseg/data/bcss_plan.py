"""What is lacking of BCSS in a folder, who has it, and what it takes to fetch it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lightmuseg.errors import InputError

from .bcss_regions import PublishedRegion, published_regions
from .bcss_servers import FIGSHARE, GDC, REGION_SERVER, GdcSlide, ServedSlide, address, gdc_slides, served_slide
from .download import NoAnswer, Web, size_of

logger = logging.getLogger(__name__)

SOURCES = ("auto", "dsa", "gdc")
# Bytes of a region's PNG to a pixel; 1.7 of the two at hand.
PNG_BYTES = 1.8
# um/px that most slides of BCSS have, to estimate by what nobody has asked for yet
USUAL_MPP = 0.25
# For the estimate of time alone.
USUAL_BYTES_PER_S = 10_000_000


@dataclass(frozen=True)
class FetchPlan:
    """What is to be fetched, and from where.

    ``regions`` lack their picture or their mask. The pictures that lack are those of ``served`` and ``slides``, by
    the regions' names; ``faults`` says of which nobody has a picture.
    """

    folder: Path
    regions: list[PublishedRegion]
    of: int
    keep_slides: bool
    parallel: int
    served: dict[str, ServedSlide] = field(default_factory=dict)
    slides: dict[str, GdcSlide] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def picture(self, region: PublishedRegion) -> Path:
        """The file of a region's pixels."""
        return self.folder / "rgbs" / region.file_name

    def mask(self, region: PublishedRegion) -> Path:
        """The file of a region's codes; written last."""
        return self.folder / "masks" / region.file_name

    def slide(self, region: PublishedRegion) -> Path:
        """The file of a region's slide, where that is fetched."""
        return self.folder / "slides" / region.slide

    def picture_bytes(self, region: PublishedRegion) -> int:
        """About how large a region's picture is."""
        slide = self.served.get(region.name)
        width, height = region.size_at(USUAL_MPP if slide is None else slide.mpp)
        return int(PNG_BYTES * width * height)

    def slide_bytes(self, region: PublishedRegion) -> int:
        """How much of a region's slide is still to be fetched."""
        slide, path = self.slides[region.name], self.slide(region)
        return 0 if path.is_file() else max(0, slide.size - size_of(path.with_name(f"{path.name}.part")))

    @property
    def bytes_to_fetch(self) -> int:
        """Of pictures and slides; the masks are small."""
        served = sum(self.picture_bytes(region) for region in self.regions if region.name in self.served)
        return served + sum(self.slide_bytes(region) for region in self.regions if region.name in self.slides)

    @property
    def bytes_on_disk(self) -> int:
        """That are needed at most, of slides that are not kept as many as there are at once."""
        lacking = [region for region in self.regions if region.name in {*self.served, *self.slides}]
        slides = sorted((self.slide_bytes(region) for region in lacking if region.name in self.slides), reverse=True)
        at_once = slides if self.keep_slides else slides[: self.parallel]
        return sum(map(self.picture_bytes, lacking)) + sum(at_once)

    def __str__(self) -> str:
        if not self.regions:
            return f"{self.folder}: all {self.of} regions are there"
        masks = sum(not self.mask(region).is_file() for region in self.regions)
        ways = [f"{masks} masks from {_host(FIGSHARE)}"] if masks else []
        if self.served:
            ways.append(f"{len(self.served)} pictures from {_host(REGION_SERVER)}")
        if self.slides:
            ways.append(f"{len(self.slides)} slides from {_host(GDC)}")
        hours = self.bytes_to_fetch / USUAL_BYTES_PER_S / 3600
        return (
            f"{self.folder}: {len(self.regions)} of {self.of} regions to fetch, {', '.join(ways)}: about "
            f"{_size(self.bytes_to_fetch)}, {hours:.1f} hours at {USUAL_BYTES_PER_S / 1e6:.0f} MB/s; "
            f"takes up to {_size(self.bytes_on_disk)} of disk"
        )


def plan_fetch(
    folder: Path,
    patients: Collection[str] = (),
    limit: int | None = None,
    regions_from: str = "auto",
    keep_slides: bool = False,
    parallel: int = 4,
) -> FetchPlan:
    """Ask the servers for what a folder lacks of BCSS; :func:`.bcss_fetch.fetch` then fetches it.

    Args:
        folder: gets ``rgbs`` and ``masks`` as the published folder has them; what is there is not fetched again.
        patients: TCGA-XX-YYYY, for theirs alone.
        limit: for the first regions alone.
        regions_from: "dsa" for single regions of a region server, "gdc" for whole slides of the GDC, from which
            the regions are then cut, or "auto" for the first where it can be had and else the second.
        keep_slides: whether slides stay in ``folder/slides``.
        parallel: regions at once.

    Raises:
        InputError: for options that cannot be used, a server that cannot be reached, or a disk that is too full.
    """
    if regions_from not in SOURCES:
        raise InputError(f"regions_from={regions_from!r} is not known; one of {', '.join(SOURCES)}.")
    if not 1 <= parallel <= 32:
        raise InputError(f"parallel={parallel} must be from 1 to 32.")
    wanted = published_regions(patients, limit)
    plan = FetchPlan(folder, [], len(wanted), keep_slides, parallel)
    plan.regions.extend(one for one in wanted if not (plan.picture(one).is_file() and plan.mask(one).is_file()))
    lacking = [region for region in plan.regions if not plan.picture(region).is_file()]
    web = Web()
    if lacking and regions_from != "gdc":
        _ask_region_server(web, plan, lacking, must=regions_from == "dsa")
    if regions_from != "dsa" and (lacking := [one for one in lacking if one.name not in plan.served]):
        try:
            found = gdc_slides(web, lacking)
        except NoAnswer as error:
            raise InputError(f"{error} {remedy(folder)}") from error
        plan.slides.update({name: slide for name, slide in found.items() if isinstance(slide, GdcSlide)})
        plan.faults.extend(str(fault) for fault in found.values() if isinstance(fault, InputError))
    _require_disk(plan)
    return plan


def _ask_region_server(web: Web, plan: FetchPlan, regions: list[PublishedRegion], must: bool) -> None:
    """Note which of the regions it has; where it ``must`` have them, which not."""
    faults = []

    def ask(region: PublishedRegion) -> None:
        try:
            plan.served[region.name] = served_slide(web, region)
        except InputError as error:
            faults.append(error)

    # the first alone: where there is no server, nobody waits for it more than once
    ask(regions[0])
    if faults and isinstance(faults[0], NoAnswer) and not faults[0].is_reached:
        if must:
            raise InputError(f"{faults[0]} {remedy(plan.folder)}") from faults[0]
        logger.warning(f"{faults[0]} Whole slides are fetched from {_host(GDC)} instead, some 1 GB each.")
        return
    with pool_of(web, plan.parallel) as pool:
        list(pool.map(ask, regions[1:]))
    if must:
        plan.faults.extend(map(str, faults))
    elif faults:
        logger.warning(f"{_host(REGION_SERVER)} gives {len(faults)} regions not; the first: {faults[0]}")


@contextmanager
def pool_of(web: Web, threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that ask servers, and stop soon when the block is left early."""
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool
    except BaseException:
        web.stopped.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _require_disk(plan: FetchPlan) -> None:
    there = next(folder for folder in (plan.folder.absolute(), *plan.folder.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if plan.bytes_on_disk > free:
        raise InputError(
            f"{plan}, of which {_size(free)} are free; free some, name another folder, or take fewer with --limit."
        )


def remedy(folder: Path) -> str:
    """What to do where a server does not give what it is asked for."""
    return (
        "Give the command again when the network (https_proxy) is there, and it goes on; or put pictures and masks "
        f"into {folder}/rgbs and {folder}/masks by hand and give --source {folder}."
    )


def _host(server: tuple[str, str]) -> str:
    return urlsplit(address(server)).netloc


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
