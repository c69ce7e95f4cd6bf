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
    """Write cohort.html of the rows of a :class:`.CohortTable` into the cohort's folder."""

    def links(row: Mapping[str, Any]) -> dict[str, str]:
        paths = {title: f"{row['results']}/{file}" for file, title in LINKS.items()}
        if row["status"] not in (DONE, CHANGED, NOT_NAMED):
            return {}
        # ./ so that a name with a colon is no scheme
        return {title: f"./{quote(os.fsencode(path))}" for title, path in paths.items() if (folder / path).is_file()}

    names = [name for name in (rows[0] if rows else ()) if name not in ("slide", "results", "status")]
    columns = [name for name in names if any(row[name] != "" for row in rows)]
    template = page_template(__package__, "page.html.jinja")
    write_text(folder / PAGE, template.render(columns=columns, rows=rows, links=links, totals=_totals(rows)))


def _totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    def total(name: str) -> float:
        return sum(float(row[name]) for row in rows if row.get(name, "") != "")

    statuses = Counter(row["status"] for row in rows)
    seconds = sum(total(name) for name in (rows[0] if rows else ()) if name.startswith("seconds_"))
    done = statuses[DONE] + statuses[CHANGED]
    return {
        "slides": f"{len(rows):,}",
        "done": f"{done:,}",
        "failed": f"{statuses[FAILED]:,}",
        "not done yet": f"{len(rows) - done - statuses[FAILED] - statuses[NOT_NAMED]:,}",
        **({"not named any more": f"{statuses[NOT_NAMED]:,}"} if statuses[NOT_NAMED] else {}),
        "tiles": f"{total('tiles'):,.0f}",
        "unread tiles": f"{total('unread_tiles'):,.0f}",
        "tissue": f"{total('tissue_area'):,.1f} mm2",
        "hours of work": f"{seconds / 3600:,.2f}",
    }
