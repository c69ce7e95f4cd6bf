"""Plot the metrics.csv of a training: python scripts/plot_training.py METRICS_CSV PICTURE (needs matplotlib)."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt


def plot(history: Path, picture: Path) -> None:
    """Draw the training loss and the validation scores over the epochs."""
    with history.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot([int(row["epoch"]) for row in rows], [float(row["loss"]) for row in rows], color="black")
    left.set(xlabel="epoch", ylabel="training loss")
    scored = [row for row in rows if row.get("val_pooled_dice")]
    for name, label in (("val_pooled_dice", "Dice of all pixels"), ("val_mean_dice", "mean Dice of tiles")):
        right.plot([int(row["epoch"]) for row in scored], [float(row[name]) for row in scored], label=label)
    right.set(xlabel="epoch", ylabel="Dice", ylim=(0, 1))
    right.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    plot(Path(sys.argv[1]), Path(sys.argv[2]))
