"""Read the table that a training writes."""

import csv


def history(output):
    """Its rows."""
    with (output / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_seconds(rows):
    """What does not differ from one run of an epoch to the next."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
