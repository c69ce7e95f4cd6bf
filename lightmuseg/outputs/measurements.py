"""Areas of the classes and the ratios that pathologists know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lightmuseg.text_files import write_csv

if TYPE_CHECKING:
    from lightmuseg.engine.counts import Counts
    from lightmuseg.engine.entropy import Entropies

# measure: the part that the first class has of both
RATIOS = (("tumor_stroma_ratio", "stroma", "tumor"), ("lymphocyte_share_of_stroma", "lymphocytic_infiltrate", "stroma"))


def write_measurements(
    path: Path, counts: Counts, class_names: Sequence[str], mpp: float, entropies: Entropies | None = None
) -> list[dict[str, str]]:
    """Write a table of one number a row: ``measure``, ``value``, ``unit`` and, for parts of a whole, ``definition``.

    The tumor-stroma ratio is the part that stroma has of tumor and stroma, as pathologists score it; they score the
    field with most stroma, and here it is all the tissue analysed. The lymphocyte share of stroma is a part of the
    area, as that of stromal tumor-infiltrating lymphocytes is, and no count of cells. A ratio is there where the model
    has its classes, and empty where none of them was found.

    Args:
        path: such as ``measurements.csv``.
        counts: of the whole map.
        class_names: of the indices from 1.
        mpp: um per pixel of the map.
        entropies: of the whole map, for the mean uncertainty of each class.

    Returns:
        The rows.

    References:
        van Pelt et al., Virchows Archiv 473 (2018) 405-412, doi:10.1007/s00428-018-2408-z.
        Salgado et al., Annals of Oncology 26 (2015) 259-271, doi:10.1093/annonc/mdu450.
    """
    pixels = dict(zip([*class_names, "other_tissue"], [*counts.analysed[1:], counts.analysed[0]]))
    sizes = {**pixels, "analysed_tissue": sum(counts.analysed), "unread": counts.unread}
    rows = [_row(f"{name}_area", f"{size * (mpp / 1000) ** 2:.6f}", "mm2") for name, size in sizes.items()]
    rows += [_part(f"{name}_share", sizes, name, ["analysed_tissue"]) for name in pixels]
    for measure, part, other in RATIOS:
        if part in class_names and other in class_names:
            rows.append(_part(measure, sizes, part, [part, other]))
    if entropies is not None:
        rows += _uncertainties(entropies, class_names)
    write_csv(path, rows)
    return rows


def _uncertainties(entropies: Entropies, class_names: Sequence[str]) -> list[dict[str, str]]:
    """The mean predictive entropy where each class was found, and of everything."""
    other, *classes = entropies.means()
    means = dict(zip([*class_names, "other_tissue", "analysed_tissue"], [*classes, other, entropies.mean()]))
    most = f"mean of entropy / log2({len(entropies.sums)})"
    return [
        _row(f"{name}_uncertainty", "" if mean is None else f"{mean:.6f}", "share of greatest entropy", most)
        for name, mean in means.items()
    ]


def _part(measure: str, sizes: Mapping[str, int], part: str, whole: Sequence[str]) -> dict[str, str]:
    """What ``part`` has of the sum of ``whole``; empty where that is nothing."""
    total = sum(sizes[name] for name in whole)
    value = f"{sizes[part] / total:.6f}" if total else ""
    names = f"({' + '.join(whole)})" if len(whole) > 1 else whole[0]
    return _row(measure, value, "fraction", f"{part} / {names}")


def _row(measure: str, value: str, unit: str, definition: str = "") -> dict[str, str]:
    return {"measure": measure, "value": value, "unit": unit, "definition": definition}
