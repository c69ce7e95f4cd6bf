"""What a slide costs by stage, and what many would: python scripts/benchmark/scaling.py SOURCE MODEL [OPTIONS].

Slides of real pixels are made from SOURCE, an image or a folder of images, by scripts/make_pyramid.py. Costs are
measured on all sizes but the last, the stages one after the other; throughput.py is fitted to them, and what it says of
the last size is compared with what that takes, with one and two workers and cores. Writes docs/benchmarks/scaling.json,
docs/scaling.md and docs/images/scaling.png (ten minutes on two cores). Linux only.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import fire
from figures import processor
from growth import FREE, ROOT
from scaling_report import write_report
from throughput import Costs, Machine, Slide, bottleneck, fit

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.provenance import environment, sha256_of

STAGES = Path(__file__).parent / "engines" / "stages.py"
OVERLAP = 0.25
WARM_UP = (2048, 0.5)
FIT_TISSUE, CHECK_TISSUE = (0.2, 0.5), 0.3
# the bundle's network by the runtime that it takes here, and one that costs nothing, as where GPUs run it
NETWORKS: dict[str, dict[str, Any]] = {"network": {}, "free": FREE}
# network, workers, cores of them all
CHECKS = (("network", 1, 2), ("network", 2, 2), ("free", 1, 1), ("free", 1, 2), ("free", 2, 2))
PART = "writing: "
# files of a slide whose size does not grow with it
PICTURES = ("overlay", "uncertainty", "report")


def benchmark(
    source: str, model: str, sides: str = "4096,8192,16384", rounds: int = 2, docs: str = str(ROOT / "docs")
) -> None:
    """Measure, fit, check, and write the report.

    Args:
        source: an image of tissue or a folder of such.
        model: weights.
        sides: of the slides in pixels; the last is for the check.
        rounds: runs of what the fit rests on.
        docs: folder of the report.
    """
    *fitted, checked = (int(side) for side in str(sides).strip("()").split(","))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for side, tissue in ((side, tissue) for side in fitted for tissue in FIT_TISSUE):
            _slide(folder, source, side, tissue)
        last, warm_up = _slide(folder, source, checked, CHECK_TISSUE), _slide(folder, source, *WARM_UP)
        first = [_name(folder, side, tissue) for side in fitted for tissue in FIT_TISSUE]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in NETWORKS}
        for number in range(rounds):
            for name, options in NETWORKS.items():
                slides = [warm_up, *first, *([] if number else [last])]
                runs[name] += _run(folder, model, options, "apart", slides, 1, os.cpu_count() or 1)
        costs = {name: fitted_costs(one_of_each(some, [path.name for path in first])) for name, some in runs.items()}
        checks = []
        for name, workers, cores in CHECKS:
            done = _run(folder, model, NETWORKS[name], "together", [warm_up, last], workers, cores)
            checks.append(_compared(costs[name], name, Machine(cores, workers, max(1, cores // workers)), done))
            print(checks[-1], file=sys.stderr)
    versions = environment()
    # it would say where the files lay
    del versions["command"]
    content = {
        **versions,
        "processor": processor(),
        "model_sha256": sha256_of(model),
        "options": {"sides": [*fitted, checked], "rounds": rounds, "overlap": OVERLAP},
        "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()},
        "measured": {name: one_of_each(some) for name, some in runs.items()},
        "checked": _name(folder, checked, CHECK_TISSUE).name,
        "checks": checks,
        "runs": runs,
    }
    write_report(Path(docs), content)


def one_of_each(runs: Sequence[dict[str, Any]], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Runs of the same slide as one, with the median of each cost.

    Writing is told apart into maps and pictures; what no stage took is the stage "other".
    """
    found = []
    for name in names or dict.fromkeys(run["slide"] for run in runs):
        same = [run for run in runs if run["slide"] == name]
        costs: dict[str, dict[str, float]] = {}
        for stage, kinds in same[0]["costs"].items():
            costs[stage] = {kind: statistics.median(run["costs"][stage][kind] for run in same) for kind in kinds}
        if not same[0]["tiles"]:
            raise InputError(f"{name}: the tissue mask finds nothing on it; give larger --sides.")
        files = {stage.removeprefix(PART): costs.pop(stage) for stage in list(costs) if stage.startswith(PART)}
        whole = costs.pop("slide")
        costs["pictures"] = _sum([files[file] for file in PICTURES if file in files], whole)
        costs["maps"] = _rest(costs.pop("writing"), [costs["pictures"]])
        costs["other"] = _rest(whole, list(costs.values()))
        tissue = int(name.split("px-")[1].removesuffix("pct.tif")) / 100
        peak = max(run["peak MiB"] for run in same)
        found.append({**same[0], "tissue": tissue, "costs": costs, "whole": whole, "files": files, "peak MiB": peak})
    return found


def _sum(costs: Sequence[dict[str, float]], kinds: Iterable[str]) -> dict[str, float]:
    return {kind: sum(cost[kind] for cost in costs) for kind in kinds}


def _rest(whole: dict[str, float], parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {kind: max(0.0, value - sum(part[kind] for part in parts)) for kind, value in whole.items()}


def fitted_costs(measured: Sequence[dict[str, Any]]) -> Costs:
    """The costs of measured slides as functions of any slide."""
    slides = [slide_of_run(one) for one in measured]
    return Costs(**{
        kind: {
            stage: fit(stage, slides, [one["costs"][stage][kind] for one in measured]) for stage in measured[0]["costs"]
        }
        for kind in ("cpu", "read", "written")
    })  # fmt: skip


def slide_of_run(one: dict[str, Any]) -> Slide:
    """What costs depend on, of a measured slide."""
    return Slide(one["gigapixels"], one["tiles"], one["tissue"])


def _compared(costs: Costs, network: str, machine: Machine, done: list[dict[str, Any]]) -> dict[str, Any]:
    """What the model says beside what was measured."""
    slide = Slide(done[0]["gigapixels"], done[0]["tiles"], CHECK_TISSUE)
    resource, predicted = bottleneck(costs, machine, slide)
    measured = sum(1 / one["costs"]["slide"]["seconds"] for one in done)
    return {
        "network": network, "workers": machine.workers, "cores": machine.cores, "slide": done[0]["slide"],
        "measured": measured, "predicted": predicted, "limit": resource, "error": predicted / measured - 1,
        "peak MiB": max(one["peak MiB"] for one in done),
    }  # fmt: skip


def _name(folder: Path, side: int, tissue: float) -> Path:
    return folder / f"{side}px-{tissue:.0%}.tif".replace("%", "pct")


def _slide(folder: Path, source: str, side: int, tissue: float) -> Path:
    path = _name(folder, side, tissue)
    words = ["--source", source, "--output", path, "--side", side, "--tissue", tissue]
    command = [sys.executable, "-W", "ignore", ROOT / "scripts" / "make_pyramid.py", *words]
    subprocess.run([str(word) for word in command], check=True, stdout=sys.stderr)
    return path


def _run(
    folder: Path, model: str, options: dict[str, Any], way: str, slides: list[Path], workers: int, cores: int
) -> list[dict[str, Any]]:
    """What the slides took, in as many processes at once as there are workers; each has its share of the cores."""
    share = max(1, cores // workers)
    here = sorted(os.sched_getaffinity(0))
    values = json.dumps({"overlap": OVERLAP, "workers": share, **options})
    running = []
    for worker in range(workers):
        output = tempfile.mkdtemp(dir=folder)
        command = [sys.executable, "-W", "ignore", STAGES, model, output, values, way, *slides]
        taken = ",".join(str(core) for core in here[worker * share : (worker + 1) * share])
        words = ["taskset", "--cpu-list", taken, *map(str, command)]
        running.append(subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    found = []
    for process in running:
        stdout, stderr = process.communicate()
        if process.returncode:
            sys.exit(stderr[-2000:])
        facts = json.loads(stdout.strip().splitlines()[-1])
        found += [{**slide, "peak MiB": facts["peak MiB"]} for slide in facts["slides"]]
    return found


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(benchmark)
