"""Medians and spread, as benchmarks print and keep them."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightmuseg.files import write_whole
from lightmuseg.provenance import environment
from lightmuseg.text_files import write_json

DOCS = Path(__file__).parents[2] / "docs" / "benchmarks"


def processor() -> str:
    """The processor's name and the number of its cores that are here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return f"{name}, {os.cpu_count()} cores ({', '.join(flag for flag in wanted if flag in flags)})"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (least to most)."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Markdown of rows, the first of which is the heading."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def publish(name: str, text: str, figures: dict[str, Any], folder: str | Path = DOCS) -> None:
    """Print Markdown, and write it and the figures it rests on into ``folder``."""
    print(text)
    folder = Path(folder)
    made = environment()
    # of a machine's own paths, the last name says enough
    made["command"] = [Path(word).name if Path(word).is_absolute() else word for word in made["command"]]
    write_json(folder / f"{name}.json", {**made, "processor": processor(), **figures})
    write_whole(folder / f"{name}.md", lambda path: path.write_text(text + "\n", encoding="utf-8"))
