"""Pictures of docs/reference.md: reliability, robustness, and the best and worst places of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise SystemExit("evaluate_reference: error: needs matplotlib: pip install 'lightmuseg[plots]'.") from error
from reference.disturbances import STRENGTHS, UNITS, strengths
from reference.tables import dice_of, disturbed, lines_of, over_seeds, patients_of, with_role

from lightmuseg.classes import IGNORED, OTHER
from lightmuseg.errors import InputError
from lightmuseg.files import write_whole
from lightmuseg.pictures import overlay

if TYPE_CHECKING:
    from reference.evaluation import Evaluation

# where a disturbance does nothing
NONE = {"stain": 0, "blur": 0, "jpeg": 100, "scale": 1, "brightness": 0}
PANEL = 460


def draw(folder: Path, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write reference_reliability.png and reference_robustness.png into a folder, where there are figures for them."""
    drawn, rows = [], with_role(rows)
    lines = lines_of(disturbed(rows))
    if lines:
        drawn.append(_saved(folder / "reference_robustness.png", _robustness(lines)))
    curves = {name: _pooled(runs) for name, runs in lines_of(rows).items()}
    if any(len(curve) for curve in curves.values()):
        drawn.append(_saved(folder / "reference_reliability.png", _reliability(curves)))
    return drawn


def draw_places(path: Path, model: Evaluation, patients: list[str]) -> None:
    """Write the worst and the best place of a model as a picture: pixels, annotation, prediction."""
    found = model.worst_and_best(patients)
    if not found:
        raise InputError(f"{', '.join(patients)}: no place with a tenth of tumor; leave places out of its measures.")
    figure, axes = plt.subplots(len(found), 3, figsize=(9, 3.3 * len(found)), squeeze=False)
    for row, word, (place, picture) in zip(axes, ("worst", "best"), found):
        box = np.s_[place["y"] : place["y"] + place["side"], place["x"] : place["x"] + place["side"]]
        pixels, labels = picture.pixels(), picture.labels(model.card)
        classes, _ = model.segment(pixels, picture.mpp)
        titles = (
            f"{word} place: {picture.patient}, x {place['x']}, y {place['y']}",
            "annotation, tumor alone" if picture.tumor_alone else "annotation",
            f"prediction, tumor Dice {100 * place['dice']:.0f}",
        )
        maps = (np.full_like(labels[box], OTHER), labels[box], classes[box])
        for axis, title, shown in zip(row, titles, maps):
            axis.imshow(
                overlay(pixels[box], shown, model.card.class_names, PANEL, striped=bool((shown == IGNORED).any()))
            )
            axis.set_title(title, fontsize=8)
            axis.axis("off")
    figure.tight_layout()
    _saved(path, figure)


def _saved(path: Path, figure: plt.Figure) -> str:
    write_whole(
        path, lambda temporary: figure.savefig(temporary, dpi=110, format=path.suffix.replace(".jpg", ".jpeg")[1:])
    )
    plt.close(figure)
    return path.name


def _robustness(lines: dict[str, list[dict[str, Any]]]) -> plt.Figure:
    figure, axes = plt.subplots(1, len(STRENGTHS), figsize=(13, 3), sharey=True)
    for axis, kind in zip(axes, STRENGTHS):
        for name, runs in lines.items():
            patients = patients_of(runs, dice_of())
            values = [(NONE[kind], over_seeds(runs, dice_of(), patients))]
            values += [(at, over_seeds(runs, dice_of(f"{kind} {at:g}"), patients)) for at in strengths(kind)]
            points = sorted((at, np.mean(found), np.std(found)) for at, found in values if found)
            axis.errorbar(*np.array(points).T[:2], yerr=np.array(points).T[2], marker="o", ms=3, capsize=2, label=name)
        axis.set(title=kind, xlabel=UNITS[kind], ylim=(0, 1))
        axis.xaxis.label.set_size(7)
    axes[2].invert_xaxis()
    axes[0].set(ylabel="tumor Dice, mean of patients")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    return figure


def _pooled(runs: Sequence[dict[str, Any]]) -> np.ndarray:
    """Mean probability and share of tumor of each bin, [bins, 2]; each patient and seed counts alike."""
    kept = [
        some["as it is"]["tumor"]["bins"] for run in runs for some in run["patients"].values() if "as it is" in some
    ]
    sums = (
        sum(np.array(bins, float) / max(1, sum(n for n, _, _ in bins)) for bins in kept) if kept else np.zeros((0, 3))
    )
    filled = sums[sums[:, 0] > 0]
    return filled[:, 1:] / filled[:, :1]


def _reliability(curves: dict[str, np.ndarray]) -> plt.Figure:
    figure, axis = plt.subplots(figsize=(4.2, 4))
    axis.plot([0, 1], [0, 1], color="grey", lw=1, ls="--", label="calibrated")
    for name, curve in curves.items():
        if len(curve):
            axis.plot(*curve.T, marker="o", ms=3, label=name)
    axis.set(xlabel="probability of tumor", ylabel="share that is tumor", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axis.legend(fontsize=7)
    figure.tight_layout()
    return figure
