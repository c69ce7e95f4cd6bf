"""The figures of the label server's benchmark as Markdown."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from typing import Any

from figures import spread, table

AIM_MS = 200


def report(runs: Sequence[dict[str, Any]], options: dict[str, Any]) -> str:
    """The figures as Markdown: of several runs the median, where there is room with the least and the most."""
    middle = statistics.median
    names = [*options["requests"], "all", "all, when due"]
    rows = [["request", "number", "errors", "at rest: median", "99%", "at work: median", "95%", "99%", "longest"]]
    for name in names:
        rest, work = ([run[part][name] for run in runs if name in run[part]] for part in ("rest", "work"))
        at_rest = [f"{middle(one[key] for one in rest):.0f}" if rest else "" for key in ("p50_ms", "p99_ms")]
        at_work = [f"{middle(one[key] for one in work):.0f}" for key in ("p50_ms", "p95_ms")]
        at_work += [spread([one[key] for one in work], 0) for key in ("p99_ms", "most_ms")]
        count = [str(sum(one[key] for one in rest + work)) for key in ("number", "errors")]
        rows.append([name, *count, *at_rest, *at_work])
    all_requests, when_due = ([run["work"][name]["p99_ms"] for run in runs] for name in names[-2:])
    share = {
        name: spread([100 * run[part][key] for run in runs], 0)
        for name, part, key in (
            ("training", "work_facts", "train"), ("scoring", "work_facts", "scoring"),
            ("others at rest", "rest_facts", "busy_by_others"), ("others at work", "work_facts", "busy_by_others"),
        )
    }  # fmt: skip
    inferred = [seconds for run in runs for seconds in run["inference_s"]]
    tile, after = (
        [spread([pair[place] for run in runs for pair in run[part]]) for part in ("left_at_rest_s", "left_at_work_s")]
        for place in (0, 1)
    )
    versions = ", ".join(f"{name} {version}" for name, version in options["versions"].items())
    side, tile_side, left_after = options["side"], options["tile"], options["left_after_s"]
    about = (
        f"`scripts/label.sh` with a slide, a region of {side:,} x {side:,} pixels and {options['tiles']} tiles, each "
        f"with two scores of {options['patches']} patches, as slides have. Two clients asked for each of these in "
        f"turn, {1 / options['every_s']:g} times a second, one by a connection for each request and one by a "
        "connection that it kept. At rest the server had nothing else to do. At work a third client had the whole "
        "region segmented, again and again, while a training and a scoring went on, each in a process of its own; then "
        f"they were cancelled and started again, {options['cancels']} times a run. Runs: {len(runs)}, each with a new "
        f"server, {options['seconds']:g} s at rest and as long at work. {options['processor']}; {versions}. "
        "Milliseconds; median of the runs (least to most). Made by `scripts/benchmark/label_server.py`."
    )
    result = (
        f"The 99th percentile of all requests at work is {spread(all_requests, 0)} ms; the aim was {AIM_MS} ms. 'When "
        "due': counted not from when a request was sent, but from when it would have been, had the answer before it "
        f"not been late: {spread(when_due, 0)} ms."
    )
    work = (
        f"At work the training ran for {share['training']}% of the time, the scoring for {share['scoring']}%, and "
        f"{len(inferred)} inferences ended, after {spread(inferred)} s. Other programs took {share['others at rest']}% "
        f"of the processors' time at rest and {share['others at work']}% at work."
    )
    gone = (
        f"Of a client that goes away the inference ends too. A tile of {tile_side} x {tile_side} pixels is segmented "
        f"in {tile[0]} s at rest, and in {after[0]} s where a client had just gone, {left_after:g} s after it asked "
        f"for the region. With the training and the scoring going on it is {tile[1]} s and {after[1]} s."
    )
    title = "# How soon the label server answers while it works"
    parts = [table(rows) if part is rows else textwrap.fill(part, 140) for part in (about, rows, result, work, gone)]
    return "\n\n".join([title, *parts])
