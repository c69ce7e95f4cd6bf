"""The regions of BCSS: where they lie in which slides of TCGA, and where their masks are."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from lightmuseg.errors import InputError

from .bcss import rendered_mpp

# What BCSS's names say, and what its regions truly have.
NOMINAL_MPP = 0.25
REGION_MPP = rendered_mpp(NOMINAL_MPP)
# A file may differ so much from its region in the ratio of its sides, which are whole pixels.
SHAPE_TOLERANCE = 0.005
# meta/roiBounds.csv and meta/slide_magnifications.csv of https://github.com/PathologyDataScience/BCSS (CC0) as one.
TABLE = Path(__file__).with_suffix(".csv")


@dataclass(frozen=True)
class PublishedRegion:
    """A region of BCSS as its authors list it.

    ``name`` is the slide's as BCSS shortens it, ``x0``, ``y0``, ``width0``, ``height0`` are level-0 pixels of the
    slide, ``mask`` is its mask's number at figshare, ``slide`` the slide's file name at TCGA, and ``item`` its
    identifier on the server from which the authors cut the regions.
    """

    name: str
    x0: int
    y0: int
    width0: int
    height0: int
    mask: str
    slide: str
    item: str

    @property
    def patient(self) -> str:
        """TCGA-XX-YYYY."""
        return self.name[:12]

    @property
    def file_name(self) -> str:
        """Of its picture and of its mask, as in the published folder."""
        return f"{self.name}_xmin{self.x0}_ymin{self.y0}_MPP-{NOMINAL_MPP:.4f}.png"

    def has_shape_of(self, size: tuple[int, int]) -> bool:
        """Whether a picture or mask of ``size`` (width, height) can show it, and no part of it."""
        return abs((size[0] / self.width0) / (size[1] / self.height0) - 1) <= SHAPE_TOLERANCE

    def size_at(self, mpp: float) -> tuple[int, int]:
        """Width and height of its picture, of a slide with ``mpp`` um/px at level 0.

        They are rounded down, as those of the published masks are, which :mod:`.slide_tiles` reckons back; the slack
        is for um/px that were rounded.
        """
        width, height = (int(side0 * mpp / REGION_MPP + 0.02) for side0 in (self.width0, self.height0))
        return width, height


def published_regions(patients: Collection[str] = (), limit: int | None = None) -> list[PublishedRegion]:
    """The 151 regions of BCSS, by name.

    Args:
        patients: TCGA-XX-YYYY, to have theirs only.
        limit: to have the first ones only.

    Raises:
        InputError: for a patient that BCSS does not have, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} must be at least 1 region.")
    with open(TABLE, newline="", encoding="utf-8") as file:
        regions = [_region(row) for row in csv.DictReader(file)]
    unknown = set(patients) - {region.patient for region in regions}
    if unknown:
        raise InputError(f"patients={min(unknown)}: is no patient of BCSS; give TCGA-XX-YYYY, as {TABLE} has them.")
    return [region for region in regions if not patients or region.patient in patients][:limit]


def _region(row: dict[str, str]) -> PublishedRegion:
    x0, y0, right0, lower0 = (int(row[name]) for name in ("xmin", "ymin", "xmax", "ymax"))
    return PublishedRegion(row["region"], x0, y0, right0 - x0, lower0 - y0, row["mask"], row["slide"], row["item"])
