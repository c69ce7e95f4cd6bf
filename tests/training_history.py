"""Read the table that a training writes."""

import csv


def history(output):
    """Its rows without the seconds: an epoch that a kill took back is trained again, to the same figures."""
    with (output / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
