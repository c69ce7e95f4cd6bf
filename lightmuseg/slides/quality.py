"""What in a slide makes its results doubtful, in one line each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from skimage.measure import blur_effect

from lightmuseg.areas.area import Area
from lightmuseg.engine.counts import Counts
from lightmuseg.engine.plan import Plan
from lightmuseg.wsi.low_power import LowPower
from lightmuseg.wsi.model_view import ModelView, whole
from lightmuseg.wsi.readers import SlideReader

from .damage import Damage
from .nuclei import LEAST_UM, MOST_UM, USUAL_UM, fields_at, nuclei_um

# Stated and given um/px that differ less mean the same.
MPP_TOLERANCE = 0.01
# A scan at 20x is 0.45 to 0.55 um/px, twice as coarse as a model of 0.25: common, and the network, whose own map is
# half as fine as what it reads, loses little by it. What is coarser than any of these is an overview, at 10x or less,
# and enlarging it brings no nuclei back.
COARSER = 2.5
# One core of 0.6 mm of a tissue microarray, the smallest sample in common use (Kononen et al., Nature Medicine 4,
# 1998, doi:10.1038/nm0798-844).
LEAST_TISSUE_MM2 = 0.28
# Places that are looked at, the share of one that is analysed, and pixels of its side, at least.
PLACES, LEAST_SHARE, LEAST_SIDE = 32, 0.5, 64
# In grey values, as standard deviation: what is plainer is glass with its noise.
LEAST_CONTRAST = 3.0
# Blur is measured at the resolution of a 20x scan, so that slides scanned at 20x and at 40x are alike.
BLUR_MPP = 0.5
# Of a place out of focus, and the share of such places that is told; see places_blur.
BLURRED, BLURRED_SHARE = 0.6, 0.25


def warnings_of(
    view: ModelView, area: Area, counts: Counts, map_mpp: float, damage: Damage, low_power: LowPower | None = None
) -> list[str]:
    """What a reader of the results should know of the slide, by what is known of it and of its map.

    Args:
        view: the slide at the model's um/px.
        area: what was analysed.
        counts: of the whole map.
        map_mpp: um per pixel of the map.
        damage: what could not be read.
        low_power: in which tissue was looked for.
    """
    mm2 = (map_mpp / 1000) ** 2
    found = [
        _picture(view.reader),
        *area.warnings,
        _scale(view.reader),
        _coarse(view),
        _tissue(sum(counts.tissue) * mm2),
        _tissue_level(low_power, view.reader.mpp),
        _model_level(view.index, damage.finer),
        _unread(damage.tiles, counts.unread * mm2),
        _unchecked(view.reader),
    ]
    return [warning for warning in found if warning]


def warnings_by_places(view: ModelView, area: Area, plan: Plan) -> list[str]:
    """What a look at places of tissue all over a slide tells: of its nuclei and of its focus.

    Args:
        view: the slide at the model's um/px.
        area: what is analysed.
        plan: of the tiles.
    """
    tissue = tissue_corners(view, area, plan)
    found = [
        nuclei_warning(view.reader.mpp, *fields_at(view, tissue, plan.tile_size)),
        _focus(places_blur(view, tissue, plan.tile_size)),
    ]
    return [warning for warning in found if warning]


def places_blur(view: ModelView, corners_m: Sequence[tuple[int, int]], tile_size: int) -> list[float]:
    """The blur of tiles of tissue at ``corners_m`` (xm, ym), 0 (sharp) to 1.

    The perceptual blur metric of Crete et al. compares an image with its own blurred copy, so brightness and contrast
    of the stain cancel out. It was measured on 71 tiles of 128 um, at 0.5 um/px: of two regions of BCSS, two slides in
    SVS and one in DICOM it is 0.23 to 0.39, of eight CAMELYON tiles 0.20 to 0.26, of two published figures, which are
    softer, 0.39 to 0.56. Blurred by a Gaussian of sigma 1 um all are at 0.35 to 0.74, of 2 um at 0.63 to 0.87; so 0.6
    parts what is sharp from what has lost 2 um.

    Returns:
        Of each place that can be read and has any structure.

    Reference:
        Crete et al., The blur effect: perception and estimation with a new no-reference perceptual blur metric,
        Proc. SPIE 6492, 2007, doi:10.1117/12.702790.
    """
    half = max(1, round(BLUR_MPP / (view.scale * view.reader.mpp)))
    found = []
    for (xm, ym), box in zip(corners_m, view.read_batch(corners_m, tile_size)):
        tile = whole(box)
        if tile is None:
            continue
        # beyond the slide's edge it is seen a second time
        inside = Image.fromarray(tile[max(0, -ym) : view.height - ym, max(0, -xm) : view.width - xm]).reduce(half)
        if min(inside.size) >= LEAST_SIDE and np.std(inside.convert("L")) >= LEAST_CONTRAST:
            found.append(float(blur_effect(np.asarray(inside), channel_axis=-1)))
    return found


def tissue_corners(view: ModelView, area: Area, plan: Plan) -> list[tuple[int, int]]:
    """Corners (xm, ym) of up to 32 tiles of tissue from all over a slide."""
    corners_m = [plan.corner_m(tile) for tile in _evenly(plan.tiles, 4 * PLACES)]
    tissue = [corner_m for corner_m in corners_m if _analysed_share(view, area, plan, corner_m) >= LEAST_SHARE]
    return _evenly(tissue, PLACES)


def _analysed_share(view: ModelView, area: Area, plan: Plan, corner_m: tuple[int, int]) -> float:
    """Of what a tile has of the slide, by 16 x 16 points."""
    x0, y0 = (place * view.scale for place in corner_m)
    width, height = (
        min(side, at + plan.tile_size) - max(0, at) for side, at in zip((view.width, view.height), corner_m)
    )
    share = area.mask(x0, y0, plan.tile_size * view.scale / 16, 16, 16).mean()
    return share * plan.tile_size**2 / (width * height)


def _evenly(items: tuple | list, count: int) -> list:
    """At most ``count`` of them, from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(index)] for index in np.linspace(0, len(items) - 1, count)]


def _picture(reader: SlideReader) -> str:
    if reader.picture is None or not reader.picture["could_be_meant"]:
        return ""
    number, name, (width, height) = (reader.picture[key] for key in ("series", "name", "size"))
    others = ", ".join(map(str, reader.picture["could_be_meant"][:10]))
    return (
        f"picture: of several in the file number {number} ({name}, {width} x {height} pixels) was taken; --series "
        f"chooses another ({others})."
    )


def _scale(reader: SlideReader) -> str:
    if reader.stated_mpps is None:
        return (
            f"scale: the file states no um per pixel, {reader.mpp:g} was given by hand; areas are only as true as that."
        )
    stated = reader.stated_mpps[0]
    if abs(stated - reader.mpp) > MPP_TOLERANCE * stated:
        return f"scale: the file states {stated:g} um per pixel, but {reader.mpp:g} was given by hand and used."
    return ""


def _coarse(view: ModelView) -> str:
    times = 1 / view.scale
    if times < COARSER:
        return ""
    return (
        f"scale: {view.reader.mpp:g} um per pixel is {times:.2g} times coarser than the model's "
        f"{view.scale * view.reader.mpp:g}; it is enlarged, but nuclei as the model knows them are not in it, so do "
        "not rely on the map: take a finer scan, or give --mpp where that is wrong."
    )


def nuclei_warning(mpp: float, fields: list[np.ndarray], field_mpp: float) -> str:
    """The warning of a scale that the nuclei contradict, else nothing.

    Args:
        mpp: um/px of level 0.
        fields, field_mpp: of :func:`.scale.fields_at`.
    """
    um = nuclei_um(fields, field_mpp)
    if um is None or LEAST_UM <= um <= MOST_UM:
        return ""
    # what is out of focus swells; pixels finer than they are said to be look a little blurred too
    if um > MOST_UM and np.median([blur_effect(field, channel_axis=-1) for field in fields]) > BLURRED:
        return ""
    return (
        f"scale: at {mpp:g} um per pixel its nuclei are {um:.2g} um thick, {USUAL_UM:g} is usual; by them it has "
        f"rather {mpp * USUAL_UM / um:.1g}. Measure something of known size, and give the right value with --mpp."
    )


def _tissue(mm2: float) -> str:
    if mm2 >= LEAST_TISSUE_MM2:
        return ""
    if not mm2:
        return "tissue: none was found; is it H&E, and is its region of interest on tissue?"
    return f"tissue: only {mm2:.2g} mm2 were found, less than a core of 0.6 mm ({LEAST_TISSUE_MM2} mm2)."


def _focus(blurs: list[float]) -> str:
    blurred = sum(blur > BLURRED for blur in blurs)
    if not blurs or blurred < BLURRED_SHARE * len(blurs):
        return ""
    return f"focus: {blurred} of {len(blurs)} places of the tissue that were looked at are blurred; scan it again."


def _tissue_level(low_power: LowPower | None, mpp0: float) -> str:
    if low_power is None or not low_power.elsewhere:
        return ""
    mm2 = low_power.elsewhere * (low_power.factor * mpp0 / 1000) ** 2
    return f"level: of level {low_power.level} {mm2:.2g} mm2 could not be read; other levels were looked at for tissue."


def _model_level(index: int, tiles: int) -> str:
    if not tiles:
        return ""
    return f"level: parts of level {index} could not be read; a finer one stands for it in {_tiles(tiles)}."


def _tiles(count: int) -> str:
    return f"{count} {'tile' if count == 1 else 'tiles'}"


def _unread(tiles: int, mm2: float) -> str:
    if not tiles:
        return ""
    return f"unread: {_tiles(tiles)} could not be read whole, {mm2:.2g} mm2 are left out."


def _unchecked(reader: SlideReader) -> str:
    if not reader.unchecked:
        return ""
    return (
        f"checked: of this kind of file ({reader.unchecked}) not all damage is found; see for yourself that the slide "
        "is whole."
    )
