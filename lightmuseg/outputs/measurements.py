"""Areas of the classes and the ratios that pathologists know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lightmuseg.text_files import write_csv

from .segmented import SegmentedSlide

# measure: the part that the first class has of both
RATIOS = (("tumor_stroma_ratio", "stroma", "tumor"), ("lymphocyte_share_of_stroma", "lymphocytic_infiltrate", "stroma"))


def write(path: Path, slide: SegmentedSlide) -> None:
    """Write a table of one number a row; see :func:`measured`."""
    write_csv(path, measured(slide))


def measured(slide: SegmentedSlide) -> list[dict[str, str]]:
    """What is measured: rows of ``measure``, ``value``, ``unit`` and, for parts of a whole and means, ``definition``.

    Analysed is what the network looked at, tissue what of that is no glass, of which shares are.
    The tumor-stroma ratio is the part that stroma has of tumor and stroma, as pathologists score it; they score the
    field with most stroma, and here it is all tissue. The lymphocyte share of stroma is a part of the
    area, as that of stromal tumor-infiltrating lymphocytes is, and no count of cells. A ratio is there where the model
    has its classes, and empty where none of them was found. Uncertainty is the mean predictive entropy where a class
    was found.

    References:
        van Pelt et al., Virchows Archiv 473 (2018) 405-412, doi:10.1007/s00428-018-2408-z.
        Salgado et al., Annals of Oncology 26 (2015) 259-271, doi:10.1093/annonc/mdu450.
    """
    counts, entropies, names = slide.counts, slide.entropies, slide.class_map.class_names
    pixels = dict(zip([*names, "other_tissue"], [*counts.tissue[1:], counts.tissue[0]]))
    sizes = {**pixels, "tissue": sum(counts.tissue), "analysed": counts.analysed, "unread": counts.unread}
    mm2 = (slide.class_map.mpp / 1000) ** 2
    rows = [_row(f"{name}_area", f"{size * mm2:.6f}", "mm2") for name, size in sizes.items()]
    rows += [_part(f"{name}_share", sizes, name, ["tissue"]) for name in pixels]
    for measure, part, other in RATIOS:
        if part in names and other in names:
            rows.append(_part(measure, sizes, part, [part, other]))
    first, *means = entropies.means()
    most = f"mean of entropy / log2({len(entropies.sums)})"
    for name, mean in zip([*pixels, "tissue"], [*means, first, entropies.mean()]):
        value = "" if mean is None else f"{mean:.6f}"
        rows.append(_row(f"{name}_uncertainty", value, "share of greatest entropy", most))
    return rows


def _part(measure: str, sizes: Mapping[str, int], part: str, whole: Sequence[str]) -> dict[str, str]:
    """What ``part`` has of the sum of ``whole``; empty where that is nothing."""
    total = sum(sizes[name] for name in whole)
    value = f"{sizes[part] / total:.6f}" if total else ""
    names = f"({' + '.join(whole)})" if len(whole) > 1 else whole[0]
    return _row(measure, value, "fraction", f"{part} / {names}")


def _row(measure: str, value: str, unit: str, definition: str = "") -> dict[str, str]:
    return {"measure": measure, "value": value, "unit": unit, "definition": definition}
