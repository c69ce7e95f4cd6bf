"""A table of results beside the published ones, as Markdown, JSON and picture; used by reproduce.py."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise SystemExit("report: error: needs matplotlib: pip install 'lightmuseg[plots]'.") from error

from lightmuseg.files import write_whole
from lightmuseg.text_files import write_json

# Figures that are not percent, and have no spread over seeds.
PLAIN = ("tiles_per_second", "million_parameters")
Figures = dict[str, tuple[float, float]]


def write_report(
    folder: Path,
    titles: dict[str, str],
    results: list[dict[str, Any]],
    published: dict[str, dict[str, float]],
    record: dict[str, Any],
) -> None:
    """Write <table>.md, <table>.json and <table>.png.

    Args:
        folder: to write into.
        titles: of the rows, in their order.
        results: one a run: row, task, seed and figures by column.
        published: the paper's figures by row and column; rows that are not in ``titles`` are cited as they are.
        record: how the results were made.
    """
    name = record["table"]
    ours = {row: _summary([r["figures"] for r in results if r["row"] == row]) for row in titles}
    columns = list(dict.fromkeys(column for result in results for column in result["figures"]))
    starts = {r["row"]: r["start"].split(" ")[0] for r in results}
    record = {**record, "hardware": ", ".join(dict.fromkeys(result["hardware"] for result in results))}
    write_json(folder / f"{name}.json", {**record, "runs": results, "ours": ours, "published": published})
    text = _markdown(titles, starts, columns, ours, published, record)
    write_whole(folder / f"{name}.md", lambda path: path.write_text(text, encoding="utf-8"))
    write_whole(folder / f"{name}.png", lambda path: _plot(path, titles, columns, ours, published))


def _summary(runs: list[dict[str, float]]) -> Figures:
    """Mean and standard deviation over runs, by column; a column may be of one task alone."""
    columns = dict.fromkeys(column for run in runs for column in run)
    values = {column: [run[column] for run in runs if column in run] for column in columns}
    return {c: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for c, v in values.items()}


def _cell(column: str, figures: Figures, published: dict[str, float], spread: bool) -> str:
    if column not in figures:
        return ""
    mean, deviation = figures[column]
    text = f"{mean:.2f}" + (f" ± {deviation:.2f}" if spread and column not in PLAIN else "")
    if column not in published:
        return text
    return f"{text} ({published[column]:g}; {mean - published[column]:+.2f})"


def _markdown(
    titles: dict[str, str],
    starts: dict[str, str],
    columns: list[str],
    ours: dict[str, Figures],
    published: dict[str, dict[str, float]],
    record: dict[str, Any],
) -> str:
    spread = len(record["seeds"]) > 1
    lines = [
        "Each cell: ours" + (" ± standard deviation over the seeds" if spread else "") + " (the paper's; difference). "
        "Percent, but for tiles per second and millions of trainable parameters.",
        "",
        "| | started from | " + " | ".join(column.replace("_", " ") for column in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row, title in titles.items():
        cells = [_cell(column, ours[row], published.get(row, {}), spread) for column in columns]
        lines.append(f"| {title} | {starts[row]} | " + " | ".join(cells) + " |")
    for row in (row for row in published if row not in titles and published[row].keys() & set(columns)):
        cells = [f"({published[row][column]:g})" if column in published[row] else "" for column in columns]
        lines.append(f"| {row}, as published | | " + " | ".join(cells) + " |")
    made = {
        key: record[key]
        for key in (
            "dataset",
            "manifest_sha256",
            "seeds",
            "options",
            "lightmuseg",
            "commit",
            "python",
            "packages",
            "hardware",
            "platform",
            "processors",
        )
    }
    lines += ["", *(f"- {key}: {value}" for key, value in made.items())]
    return "\n".join(lines) + "\n"


def _plot(
    path: Path,
    titles: dict[str, str],
    columns: list[str],
    ours: dict[str, Figures],
    published: dict[str, dict[str, float]],
) -> None:
    """Bars of the table's first figure, the published ones as marks, and its relation to speed and size (Fig. 5)."""
    column = columns[0]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 0.45 * len(titles) + 2))
    rows = [row for row in reversed(titles) if column in ours[row]]
    left.barh(
        [titles[row] for row in rows],
        [ours[row][column][0] for row in rows],
        xerr=[ours[row][column][1] for row in rows],
        color="tab:red",
        alpha=0.7,
        label="ours",
    )
    cited = [row for row in rows if column in published.get(row, {})]
    left.plot([published[r][column] for r in cited], [titles[r] for r in cited], "kD", mfc="none", label="published")
    left.set(xlabel=f"{column.replace('_', ' ')} (%)", xlim=(0, 100))
    left.legend(loc="lower right")
    for row in rows:
        speed, size, value = (ours[row][key][0] for key in ("tiles_per_second", "million_parameters", column))
        right.scatter(speed, value, s=25 * size, alpha=0.5)
        right.annotate(row, (speed, value), fontsize=8, ha="center", va="center")
    right.set(xlabel="tiles per second", ylabel=f"{column.replace('_', ' ')} (%)", title="area: trainable parameters")
    right.margins(0.2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
