"""The cohort's table as a page that needs nothing but a browser."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightmuseg.pages import page_template
from lightmuseg.slides.outcome import DONE, FAILED
from lightmuseg.text_files import write_text

from .cohort_slide import PAGE
from .cohort_table import CHANGED, NOT_NAMED

# what a slide's folder of results may hold, as links name it
LINKS = {"report.html": "report", "overlay.png": "overlay"}


def write_page(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write cohort.html beside the folders of results.

    Args:
        folder: of the cohort.
        rows: of :class:`.CohortTable`.
    """
    names = [name for name in (rows[0] if rows else ()) if name not in ("slide", "results", "status")]
    columns = [name for name in names if any(row[name] != "" for row in rows)]
    lines = [
        {
            "name": row["results"],
            "slide": row["slide"],
            "status": row["status"],
            "links": _links(folder, row["results"]) if row["status"] in (DONE, CHANGED, NOT_NAMED) else {},
            "cells": [row[name] for name in columns],
        }
        for row in rows
    ]
    template = page_template(__package__, "page.html.jinja")
    write_text(folder / PAGE, template.render(columns=columns, lines=lines, totals=_totals(rows)))


def _links(folder: Path, name: str) -> dict[str, str]:
    there = {title: f"{name}/{file}" for file, title in LINKS.items() if (folder / name / file).is_file()}
    # ./ so that a name with a colon is no scheme
    return {title: f"./{quote(os.fsencode(path))}" for title, path in there.items()}


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    statuses = Counter(row["status"] for row in rows)
    seconds = sum(_sum(rows, name) for name in (rows[0] if rows else ()) if name.startswith("seconds_"))
    done = statuses[DONE] + statuses[CHANGED]
    others = len(rows) - done - statuses[FAILED] - statuses[NOT_NAMED]
    return {
        "slides": f"{len(rows):,}",
        "done": f"{done:,}",
        "failed": f"{statuses[FAILED]:,}",
        "not done yet": f"{others:,}",
        **({"not named any more": f"{statuses[NOT_NAMED]:,}"} if statuses[NOT_NAMED] else {}),
        "tiles": f"{_sum(rows, 'tiles'):,.0f}",
        "unread tiles": f"{_sum(rows, 'unread_tiles'):,.0f}",
        "tissue": f"{_sum(rows, 'analysed_tissue_area'):,.1f} mm2",
        "hours of work": f"{seconds / 3600:,.2f}",
    }


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return sum(float(row[name]) for row in rows if row.get(name, "") != "")
