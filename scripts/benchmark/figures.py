"""What the benchmarks share: runs in turns, medians with their spread, and figures as JSON and Markdown.

A page of docs/benchmarks is written by hand down to the line MARK. The tables below it are made of the JSON beside the
page, which holds a session for each machine and each set of options: who measured, and one run a line.
"""

from __future__ import annotations

import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_text

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "benchmarks"
ENGINES = Path(__file__).parent / "engines"
MARK = "<!-- figures -->"
Row = dict[str, Any]


def run(*words: Any, python: str | Path = sys.executable, threads: int | None = None) -> str:
    """What a Python script prints.

    Raises:
        RuntimeError: where it fails, with the end of what it reports.
    """
    command = [str(word) for word in (python, "-W", "ignore", *words)]
    variables = {**os.environ, **({} if threads is None else {"OMP_NUM_THREADS": str(threads)})}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def measured(*words: Any, **options: Any) -> Row:
    """The JSON in the last line that a Python script prints; options as of :func:`run`."""
    return json.loads(run(*words, **options).strip().splitlines()[-1])


def in_a_process(script: str, **options: Any) -> Row:
    """What the measurement of a script gives in a process of its own; see :func:`command_line`."""
    return measured(script, "measure", json.dumps(options))


def command_line(benchmark: Callable[..., None], measure: Callable[..., Row]) -> None:
    """Run a benchmark, or one of its measurements: ``SCRIPT measure JSON``."""
    if sys.argv[1:2] == ["measure"]:
        print("\n" + json.dumps(measure(**json.loads(sys.argv[2]))))
    else:
        fire.Fire(benchmark)


def make_slide(path: Path, source: str, side: int, tissue: float) -> None:
    """Write a slide of real pixels; see scripts/make_pyramid.py."""
    words = ["--source", source, "--output", path, "--side", side, "--tissue", tissue]
    run(ROOT / "scripts" / "make_pyramid.py", *words)


def chosen(names: str, known: Iterable[str]) -> list[str]:
    """The names with semicolons between, all of them where none is given."""
    known = list(known)
    wanted = [name.strip() for name in names.split(";")] if names else known
    if unknown := set(wanted) - set(known):
        sys.exit(f"--ways {'; '.join(sorted(unknown))}: not known; give some of {'; '.join(known)}.")
    return wanted


def in_turns(ways: Mapping[str, Callable[[], Row]], rounds: int) -> list[Row]:
    """The figures of all ways, one after the other, round by round; a way that fails is reported and left out."""
    rows, failed = [], set()
    for _ in range(rounds):
        for way, measure in ways.items():
            if way in failed:
                continue
            try:
                rows.append({"way": way, **measure()})
                print(rows[-1], file=sys.stderr)
            except RuntimeError as error:
                failed.add(way)
                print(f"{way}: left out: {error}", file=sys.stderr)
    return [row for row in rows if row["way"] not in failed]


def seconds_of(call: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def by_way(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The runs of each way."""
    ways: dict[str, list[Row]] = {}
    for row in rows:
        ways.setdefault(row["way"], []).append(row)
    return ways


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (least to most); empty where there is no value."""
    if not values:
        return ""
    middle = f"{statistics.median(values):.{digits}f}"
    return f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else middle


def column(rows: Sequence[Row], name: str, digits: int = 1, times: float = 1) -> str:
    """The spread of one figure, multiplied; empty where the runs have none."""
    return spread([times * row[name] for row in rows if name in row], digits)


def ratios(rows: Sequence[Row], others: Sequence[Row], name: str) -> list[float]:
    """Of the runs of two ways, round by round, one's figure over the other's."""
    return [row[name] / other[name] for row, other in zip(rows, others)]


def table(rows: Sequence[Sequence[Any]]) -> str:
    """Markdown of rows, the first of which is the heading."""
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def processor() -> str:
    """The processor's name, the number of its cores that can be used, and what it knows of vectors."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    return f"{name}, {os.cpu_count()} cores ({', '.join(flag for flag in wanted if flag in flags)})"


def publish(
    name: str, tables: Callable[[Row], list[str]], rows: list[Row], options: Row, folder: str | Path = DOCS,
    model: str = "", device: str = "", **facts: Any,
) -> None:  # fmt: skip
    """Write a session into NAME.json, in the place of one of the same machine and options, and NAME.md anew.

    Args:
        name: of the benchmark.
        tables: Markdown of a session.
        rows: of the runs.
        options: what was measured, shown in the page.
        folder: of the files.
        model: weights, of which the hash is kept.
        device: that the network ran on, where it is not the processor.
        facts: more to keep.
    """
    path = Path(folder) / f"{name}.json"
    made = environment()
    del made["command"]
    hashed = {"model_sha256": sha256_of(model)} if model else {}
    day = datetime.date.today().isoformat()
    session = {"machine": device or processor(), "date": day, "options": options, **made, **hashed, **facts}
    sessions = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    sessions = [one for one in sessions if any(one[key] != session[key] for key in ("machine", "options"))]
    sessions.append({**session, "rows": rows})
    write_text(path, as_json(sessions))
    page = path.with_suffix(".md")
    head = page.read_text(encoding="utf-8") if page.is_file() else f"# {name}\n\n{MARK}"
    write_text(page, with_tables(head, tables, sessions))
    print("\n\n".join(tables(sessions[-1])))


def as_json(sessions: Sequence[Row]) -> str:
    """Sessions as JSON with one run a line."""
    parts = []
    for session in sessions:
        head = json.dumps({key: value for key, value in session.items() if key != "rows"}, ensure_ascii=False)
        rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in session["rows"])
        parts.append(f'{head[:-1]}, "rows": [\n{rows}]}}')
    return "[\n" + ",\n".join(parts) + "\n]\n"


def with_tables(page: str, tables: Callable[[Row], list[str]], sessions: Sequence[Row]) -> str:
    """A page with the tables of all sessions in the place of those that it has."""
    parts = [page.partition(MARK)[0] + MARK]
    for session in sessions:
        options = ", ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
                            for name, value in session["options"].items())  # fmt: skip
        about = f"{session['date']}, lightmuseg {session['lightmuseg']} (`{str(session['commit'])[:7]}`); {options}."
        parts += [f"## {session['machine']}", about, *tables(session)]
    return "\n\n".join(parts) + "\n"
