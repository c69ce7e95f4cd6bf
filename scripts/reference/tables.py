"""Tables and sentences of docs/reference.md, made of the figures alone."""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from reference.disturbances import SIGNED, STRENGTHS, UNITS, opposite
from reference.scores import brier, dice, expected_calibration_error

Row = dict[str, Any]
Get = Callable[[Row, Row], float | None]
COMMAND = "python scripts/evaluate_reference.py ROWS DATA OUTPUT --measures "


def as_json(content: Row) -> str:
    """The figures as JSON with a model a line."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in content["rows"])
    return f'{{"made": {json.dumps(content["made"], default=str)}, "rows": [\n{rows}]}}\n'


def filled_in(page: str, content: Row) -> str:
    """The page with each block between ``<!-- name -->`` and ``<!-- end -->`` written anew."""
    made = blocks(content)
    pattern = re.compile(r"(<!-- ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{made.get(found[2], 'Not measured yet.')}\n\n{found[3]}", page)


def blocks(content: Row) -> dict[str, str]:
    """Markdown of each block that something was measured for, by name."""
    rows = content["rows"]
    # a trial that was trained like a model with a role has its other figures too
    made = {name: make(rows if name == "dice" else with_role(rows)) for name, make in _BLOCKS.items()}
    said = {name: [text, f"*`{COMMAND}{_MEASURED[name]}`*"] for name, text in made.items() if text}
    for picture in content["made"]["pictures"]:
        known = {"reference_reliability.png": "calibration", "reference_robustness.png": "robustness"}
        said.setdefault(known.get(picture, "places"), []).append(f"![{picture}](images/{picture})")
    return {name: "\n\n".join(parts) for name, parts in said.items()}


def table(heading: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Markdown; nothing where there are no lines."""
    if not lines:
        return ""
    rows = ["| " + " | ".join(line) + " |" for line in (heading, *lines)]
    return "\n".join([rows[0], "|" + "---|" * len(heading), *rows[1:]])


def spread(values: Sequence[float], times: float = 100, digits: int = 1) -> str:
    """Mean, and the standard deviation where there are several.

    >>> spread([0.5, 0.6]), spread([0.5]), spread([])
    ('55.0 ± 7.1', '50.0', '')
    """
    if not values:
        return ""
    deviation = f" ± {times * statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{times * statistics.fmean(values):.{digits}f}{deviation}"


def lines_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each name, in their order."""
    named: dict[str, list[Row]] = {}
    for row in rows:
        named.setdefault(row["name"], []).append(row)
    return named


def over_seeds(runs: Sequence[Row], get: Get, patients: Sequence[str]) -> list[float]:
    """Of each seed the mean over these patients, of whom each was kept from one of the seed's models."""
    seeds: dict[int, dict[str, list[float]]] = {}
    for run in runs:
        for patient in run["patients"]:
            value = get(run, run["patients"][patient])
            if patient in patients and value is not None:
                seeds.setdefault(run.get("seed", 0), {}).setdefault(patient, []).append(value)
    whole = [values for values in seeds.values() if set(values) == set(patients)]
    return [statistics.fmean(statistics.fmean(values[patient]) for patient in patients) for values in whole]


def patients_of(runs: Sequence[Row], get: Get) -> list[str]:
    """Those of whom the runs have the figure, in their order."""
    have = [patient for run in runs for patient in run["patients"] if get(run, run["patients"][patient]) is not None]
    return list(dict.fromkeys(have))


def dice_of(condition: str = "as it is", name: str | None = None) -> Get:
    """Pooled Dice of a class, of tumor where none is named."""

    def get(run: Row, figures: Row) -> float | None:
        counts = figures.get(condition, {}).get("counts", {}).get(name or run["tumor"])
        return None if counts is None or (name is not None and not counts[0] + counts[2]) else dice(counts)

    return get


def disturbed(rows: Sequence[Row]) -> list[Row]:
    """The rows that were measured on disturbed pictures."""
    return [row for row in rows if patients_of([row], dice_of("jpeg 70"))]


def with_role(rows: Sequence[Row]) -> list[Row]:
    """The rows of models that are held against the targets; the many trials would hide them."""
    return [row for row in rows if "role" in row]


def _tile_dice(run: Row, figures: Row) -> float | None:
    return figures.get("as it is", {}).get("tiles", {}).get(run["tumor"])


def _common(lines: dict[str, list[Row]], get: Get) -> list[str]:
    """The patients whom all lines have."""
    have = [patients_of(runs, get) for runs in lines.values()]
    return [patient for patient in have[0] if all(patient in other for other in have)] if have else []


def dice_block(rows: Sequence[Row]) -> str:
    """Of each group a table, and who wins by the patients that all of its lines have."""
    parts, get = [], dice_of()
    for group, grouped in itertools.groupby(rows, key=lambda row: row.get("group", "")):
        lines = {name: runs for name, runs in lines_of(list(grouped)).items() if patients_of(runs, get)}
        if group and len(lines) < 2:  # there is nothing to compare with yet
            continue
        patients = list(dict.fromkeys(patient for runs in lines.values() for patient in patients_of(runs, get)))
        common = _common(lines, get)
        cells = [
            [name, f"{runs[0]['mpp']:g}", *(spread(over_seeds(runs, get, [patient])) for patient in patients),
             spread(over_seeds(runs, get, common)) if common else "",
             spread(over_seeds(runs, _tile_dice, common)) if common else ""]
            for name, runs in lines.items()
        ]  # fmt: skip
        shared = f"mean of {len(common)}"
        heading = ["", "um/px", *patients, f"{shared}, pooled", f"{shared}, of tiles"]
        parts += [f"**{group}**" if group else "", table(heading, cells), winner(lines, common) if common else ""]
    return "\n\n".join(part for part in parts if part)


def winner(lines: dict[str, list[Row]], patients: Sequence[str]) -> str:
    """Who has the highest mean Dice, by how much, and whether that is more than seeds differ by."""
    found = {name: over_seeds(runs, dice_of(), patients) for name, runs in lines.items()}
    order = sorted((name for name in found if found[name]), key=lambda name: -statistics.fmean(found[name]))
    if len(order) < 2:
        return ""
    first, second = (found[name] for name in order[:2])
    lead = 100 * (statistics.fmean(first) - statistics.fmean(second))
    if min(len(first), len(second)) < 2:
        verdict = "of one seed, which proves nothing"
    else:
        noise = 100 * (statistics.variance(first) / len(first) + statistics.variance(second) / len(second)) ** 0.5
        verdict = f"{'more' if lead > 2 * noise else 'not more'} than twice its standard error over seeds, {noise:.1f}"
    return f"**Who wins:** {order[0]}, {lead:.1f} points ahead of {order[1]}; that is {verdict}."


def classes_block(rows: Sequence[Row]) -> str:
    """Pooled Dice of each class of models with several, of patients who have it."""
    lines = {name: runs for name, runs in lines_of(rows).items() if len(runs[0]["classes"]) > 1}
    cells = []
    for name, runs in lines.items():
        for class_name in runs[0]["classes"]:
            get = dice_of(name=class_name)
            patients = patients_of(runs, get)
            each = ", ".join(f"{patient} {spread(over_seeds(runs, get, [patient]))}" for patient in patients)
            cells.append([name, class_name, each, spread(over_seeds(runs, get, patients)) if patients else ""])
    return table(["", "class", "each patient never seen", "mean"], cells)


def calibration_block(rows: Sequence[Row]) -> str:
    """Expected calibration error and Brier score, mean of patients."""

    def kept(name: str, figure: Callable[[Row], float]) -> Get:
        def get(_: Row, figures: Row) -> float | None:
            found = figures.get("as it is", {}).get(name)
            return figure(found) if found else None

        return get

    def error(found: Row) -> float:
        return expected_calibration_error(found["bins"])

    figures = (kept("tumor", error), kept("confidence", error), kept("tumor", brier))
    cells = []
    for name, runs in lines_of(rows).items():
        patients = [patients_of(runs, get) for get in figures]
        if patients[0]:
            values = [over_seeds(runs, get, some) if some else [] for get, some in zip(figures, patients)]
            cells.append([name, *(spread(value, digits=3, times=1) for value in values)])
    return table(["", "ECE, tumor", "ECE, most probable class", "Brier, tumor"], cells)


def robustness_block(rows: Sequence[Row]) -> str:
    """Tumor Dice, mean of patients; of what goes both ways the mean of both."""
    cells = []
    for name, runs in lines_of(disturbed(rows)).items():
        patients = patients_of(runs, dice_of())
        for kind in STRENGTHS:
            line = [name, f"{kind} ({UNITS[kind]})", spread(over_seeds(runs, dice_of(), patients))]
            for strength in STRENGTHS[kind]:
                ways = [strength, opposite(kind, strength)] if kind in SIGNED else [strength]
                found = [over_seeds(runs, dice_of(f"{kind} {way:g}"), patients) for way in ways]
                each = spread([statistics.fmean(pair) for pair in zip(*found)])
                line.append(f"{SIGNED.get(kind, '')}{strength:g}: {each}")
            cells.append(line)
    return table(["", "disturbance", "none", "mild", "medium", "strong"], cells)


def readings_block(key: str, heading: str, rows: Sequence[Row]) -> str:
    """Tumor Dice, mean of patients, and the network's tiles, by how the model reads."""
    cells = []
    for name, runs in lines_of(rows).items():
        found = {what: some[what] for run in runs for some in run["patients"].values() for what in some}
        conditions = [what for what in found if what.split()[0] == key]
        for condition in sorted(conditions, key=lambda what: float(what.split()[-1]) if " " in what else 0):
            patients = patients_of(runs, dice_of(condition))
            both = [spread(over_seeds(runs, get, patients)) for get in (dice_of(condition), dice_of())]
            each = {p: some[condition]["network_tiles"] for run in runs for p, some in run["patients"].items()
                    if condition in some}  # fmt: skip
            cells.append([name, condition.partition(" ")[2] or "mean of four", *both, str(sum(each.values()))])
    return table(["", heading, "Dice", "as users get it", "tiles"], cells)


def edges_block(rows: Sequence[Row]) -> str:
    """How much more of the outermost 8 pixels is tumor in a crop than in the whole picture."""
    cells = []
    for name, runs in lines_of(rows).items():
        kept = [some["edges"] for run in runs for some in run["patients"].values() if "edges" in some]
        if sum(one["crops"] for one in kept):
            sums = {s: [sum(one["sides"][s][n] for one in kept) for n in (0, 1)] for s in kept[0]["sides"]}
            sums = {"all four": [sum(pair) for pair in zip(*sums.values())], **sums}
            ratios = [f"{alone / whole:.2f}" if whole else "" for alone, whole in sums.values()]
            cells.append([name, str(sum(one["crops"] for one in kept)), *ratios])
    return table(["", "crops", "all four sides", "left", "right", "upper", "lower"], cells)


def glass_block(rows: Sequence[Row]) -> str:
    """Share of the glass called tumor."""
    cells = []
    for name, runs in lines_of([row for row in rows if "glass" in row]).items():
        for slide in runs[0]["glass"]:
            found = [run["glass"][slide] for run in runs]
            ways = ("network", "with the tissue mask")
            shares = [statistics.fmean(one[way] / max(1, one["glass"]) for one in found) for way in ways]
            cells.append([name, slide, *(f"{share:.3%}" for share in shares)])
    return table(["", "slide", "the network alone", "with the tissue mask, as users get it"], cells)


def targets_block(rows: Sequence[Row]) -> str:
    """What was wanted, and what there is."""
    by_role = {role: [row for row in rows if row.get("role") == role] for role in ("tumor", "tissue", "unet")}
    by_role["tumor, trained alike"] = [row for row in by_role["tumor"] if "group" in row]

    def mean(role: str, get: Get, patients: Sequence[str] = ()) -> float | None:
        """Over patients, each with the seeds that it has; by the package's model where that never saw the patient."""
        runs, seeds_of = by_role[role], []
        for one in patients or patients_of(runs, get):
            package = [row for row in runs if "group" not in row and one in row["patients"]]
            seeds_of.append(over_seeds(package or runs, get, [one]))
        return statistics.fmean(map(statistics.fmean, seeds_of)) if seeds_of and all(seeds_of) else None

    lines = []

    def add(title: str, before: str, wanted: str, measure: str, least: float, most: float, value: float | None) -> None:
        state = "met" if value is not None and least <= value <= most else "**missed**"
        lines.append([title, before, wanted, "not measured" if value is None else f"{value:.4g}: {state}", measure])

    for patient, before in (("TCGA-A2-A1G6", "0.697"), ("TCGA-S3-AA10", "-"), ("TCGA-S3-AA15", "-")):
        add(f"tumor Dice, {patient}", before, "0.80", "dice", 0.8, 1, mean("tumor", dice_of(), [patient]))
    for name, least in (("tumor", 0.78), ("stroma", 0.75)):
        got = mean("tissue", dice_of(name=name))
        add(f"`tissue`: {name} Dice, mean of patients", "-", f"{least:.2f}", "dice", least, 1, got)
    alike = ("tumor, trained alike", "unet")
    common = _common({role: by_role[role] for role in alike}, dice_of())
    pair = [mean(role, dice_of(), common) if common else None for role in alike]
    lead = None if None in pair else 100 * (pair[0] - pair[1])  # type: ignore[operator]
    add("points of Dice ahead of the U-Net trained alike", "-4.5", "1", "dice", 1, 100, lead)
    shipped = [one for role in ("tumor", "tissue") for row in by_role[role] for one in row.get("glass", {}).values()]
    share = max((100 * one["network"] / max(1, one["glass"]) for one in shipped), default=None)
    add("% of a slide's glass called tumor, by the network alone", "-", "under 0.1", "glass", 0, 0.1, share)
    sides = [side for row in by_role["tumor"] for some in row["patients"].values() if "edges" in some
             for side in some["edges"]["sides"].values()]  # fmt: skip
    alone, whole = (sum(side[number] for side in sides) for number in (0, 1))
    ratio = alone / whole if whole else None
    add("tumor at the edge of crops, as a multiple", "3.0", "0.9 to 1.1", "edges", 0.9, 1.1, ratio)
    return table(["", "before", "wanted", "now", "measure"], lines)


_BLOCKS: dict[str, Callable[[Sequence[Row]], str]] = {
    "targets": targets_block, "dice": dice_block, "classes": classes_block, "calibration": calibration_block,
    "robustness": robustness_block, "edges": edges_block, "glass": glass_block,
    "scales": lambda rows: readings_block("mpp", "um/px", rows),
    "overlaps": lambda rows: readings_block("overlap", "overlap", rows),
    "flips": lambda rows: readings_block("flips", "flips", rows),
}  # fmt: skip
_MEASURED = {name: name for name in _BLOCKS} | {
    "targets": "dice,edges,glass", "classes": "dice", "calibration": "dice",
}  # fmt: skip
MARKS = [f"<!-- {name} -->" for name in (*_BLOCKS, "places")]
