"""The Markdown of docs/scaling.md, made of the content of docs/benchmarks/scaling.json alone."""

from __future__ import annotations

import textwrap
from typing import Any

from figures import table

ORDER = ("planning", "reading", "network", "merging", "checking", "maps", "pictures", "hashing", "other")
# a stage as it stands in a sentence
SAID = {
    "checking": "looking at places for blur", "maps": "writing the map and its polygons",
    "pictures": "drawing pictures", "other": "opening and recording",
}  # fmt: skip
WIDTH = 140


def page(content: dict[str, Any]) -> str:
    """All of it."""
    parts = (_answer, _measured, _model, _check, _one_gpu, _cluster, _sensitivity, _limits)
    return "\n\n".join(block for part in parts for block in part(content)) + "\n"


def _text(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False)


def _list(*items: str) -> str:
    return "\n".join(
        textwrap.fill(item, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        for item in items
    )  # fmt: skip


def _answer(content: dict[str, Any]) -> list[str]:
    assumed, planning = content["assumed"], content["planning"]
    rates, most = assumed["gpu_tiles"], max(assumed["workers"])
    middle = rates[1]
    slide, cpu = planning["slide"], planning["slide"]["cpu"]
    full = {one["gpu_tiles"]: one for one in planning["one_gpu"] if one["workers"] == most}
    enough = [f"{rate:,}" for rate in rates if full[rate]["a_day"] >= 1000]
    reached = f"at {' and '.join(enough)} tiles a second" if enough else "at none of these rates"
    lacking = [f"at {rate:,} it makes {full[rate]['a_day']:,.0f}" for rate in rates if full[rate]["a_day"] < 1000]
    alone = next(one for one in planning["one_gpu"] if one["workers"] == 1 and one["gpu_tiles"] == middle)
    longest = max((stage for stage in cpu if stage != "network"), key=lambda stage: cpu[stage])
    day, many = (
        next(one for one in planning["days"] if one["slides"] == number and one["gpu_tiles"] == middle)
        for number in (1_000, 100_000)
    )
    limits = [full[rate]["limit"] for rate in rates]
    by_rate = ", ".join(f"{limit} at {rate:,}" for limit, rate in zip(limits, rates))
    if len(set(limits)) == 1:
        by_rate = f"{limits[0]} at each of these rates"
    return [
        "# How many slides a day",
        _text(
            "What a slide costs was measured on two cores without a GPU; a model made of that says what a GPU or a",
            f"cluster would do. **No GPU was measured**: the network's rate on one is a parameter, {rates[0]:,},",
            f"{middle:,} or {rates[2]:,} tiles a second. The only published figure is the paper's",
            f"{assumed['paper_tiles']} on an RTX 3090. Measured on {content['processor']} by",
            "`scripts/benchmark/scaling.py`; every figure is from [scaling.json](benchmarks/scaling.json).",
        ),
        _list(
            f"**A slide** of {assumed['side']:,} x {assumed['side']:,} pixels with {assumed['tissue']:.0%} tissue is "
            f"{slide['tiles']:,.0f} tiles at an overlap of {assumed['overlap']:g}. Beside the network it costs "
            f"{sum(cpu.values()) - cpu['network']:,.0f} CPU-seconds, {cpu[longest]:,.0f} of them for "
            f"{SAID.get(longest, longest)}.",
            f"**1,000 slides a day** are {day['tiles']:,.0f} tiles a second without a pause, and {day['cores']:,.1f} "
            f"cores beside the network. One GPU with {assumed['cores']} cores and {most} workers does it {reached}"
            + (f"; {', '.join(lacking)}." if lacking else "."),
            f"**100,000 slides a day** take {many['GPUs']:,.0f} GPUs of {middle:,} tiles a second, "
            f"{many['cores']:,.0f} cores and {many['storage'] / 1e9:.1f} GB/s of storage.",
            f"**The first bottleneck**, with one worker a GPU, is the {alone['limit'].removesuffix('s')}: at "
            f"{middle:,} tiles a second a slide takes it {alone['seconds']:,.0f} s, and the network "
            f"{slide['tiles'] / middle:,.0f} s of them. Of the CPU's work the longest is "
            f"{SAID.get(longest, longest)}. Several workers a GPU fill the gaps; with {most} the limit is {by_rate}.",
        ),
        "![Slides a day against GPUs](images/scaling.png)",
    ]


def _measured(content: dict[str, Any]) -> list[str]:
    measured, options = content["measured"]["network"], content["options"]
    rows = [["slide", "tiles", *ORDER, "peak memory, MiB"]]
    files = [["slide", *measured[0]["files"]]]
    moved = [["slide", "its file, MB", "read by calls, MB", "of that a tile, kB", "written by calls, MB"]]
    for one in measured:
        costs, name = one["costs"], _title(one["slide"])
        rows.append([name, one["tiles"], *(f"{costs[stage]['cpu']:.2f}" for stage in ORDER), one["peak MiB"]])
        files.append([name, *(f"{cost['cpu']:.2f}" for cost in one["files"].values())])
        moved.append([
            name, f"{one['bytes'] / 1e6:.1f}", f"{one['whole']['read'] / 1e6:.1f}",
            f"{costs['reading']['read'] / one['tiles'] / 1e3:.0f}", f"{one['whole']['written'] / 1e6:.1f}",
        ])  # fmt: skip
    return [
        "## What a slide costs",
        _text(
            f"CPU-seconds of all threads, one stage after the other; median of {options['rounds']}, of the largest",
            f"slide of 1. Real BCSS pixels, JPEG, 0.25 um/px, overlap {options['overlap']:g}, files in the page cache.",
            "What starts a worker, loading and proving its network, is left out.",
        ),
        table(rows),
        _text(
            "Maps and pictures, by file. Pictures have a largest size; what is left of maps is reading rows and",
            "thumbnails.",
        ),
        table(files),
        _text(
            "Neighbouring tiles share blocks of the file, and a block is looked at before it is decoded, so calls read",
            "more than the file holds; what the page cache keeps does not reach the storage twice. The hash for",
            "`run.json` reads the whole file.",
        ),
        table(moved),
    ]


def _model(content: dict[str, Any]) -> list[str]:
    costs = content["costs"]["network"]
    rows = [["", "fixed", "a gigapixel of slide", "a tile", "all of it tissue"]]
    for stage in ORDER:
        cost = costs["cpu"][stage]
        rows.append([
            f"{stage}, CPU", f"{cost['fixed']:.2f} s", f"{cost['per_gigapixel']:.2f} s",
            f"{1000 * cost['per_tile']:.2f} ms", f"{cost['per_tissue']:.2f} s",
        ])  # fmt: skip
    for kind in ("read", "written"):
        fixed, area, tile, tissue = (
            sum(cost[part] for cost in costs[kind].values())
            for part in ("fixed", "per_gigapixel", "per_tile", "per_tissue")
        )
        rows.append([
            f"{kind} by calls", f"{fixed / 1e6:.1f} MB", f"{area / 1e6:.0f} MB", f"{tile / 1e3:.0f} kB",
            f"{tissue / 1e6:.1f} MB",
        ])  # fmt: skip
    *fitted, _ = content["options"]["sides"]
    return [
        "## The model",
        "Slides a second are the least of",
        _list(
            "GPUs x their tiles a second / tiles of a slide;",
            "cores / CPU-seconds of a slide;",
            "workers / seconds of a slide in one: the longest of reading, network and merging, which overlap, and then "
            "all other stages, which are one thread's;",
            "the storage's bytes a second / bytes that calls read and write for a slide, as if nothing were cached.",
        ),
        _text(
            "Each cost is a sum of what the table shows, 0.00 for what it does not depend on; fitted to the",
            f"slides of {' and '.join(f'{side:,}' for side in fitted)} pixels by relative least squares, nothing",
            "negative.",
            "`scripts/benchmark/throughput.py` is all of it.",
        ),
        table(rows),
    ]


def _check(content: dict[str, Any]) -> list[str]:
    one = next(one for one in content["measured"]["network"] if one["slide"] == content["checked"])
    predicted = content["predicted"]
    rows = [["", "predicted", "measured", "error"]]
    for stage in ORDER:
        figures = predicted["cpu"][stage], one["costs"][stage]["cpu"]
        rows.append([f"{stage}, CPU", *(f"{figure:.2f} s" for figure in figures), _error(*figures)])
    for kind in ("read", "written"):
        figures = predicted[kind], one["whole"][kind]
        rows.append([f"{kind} by calls", *(f"{figure / 1e6:.1f} MB" for figure in figures), _error(*figures)])
    whole = [["network", "workers", "cores", "slides an hour, predicted", "measured", "error", "limited by"]]
    for done in content["checks"]:
        name = "the bundle's, on the CPU" if done["network"] == "network" else "one that costs nothing"
        hour = [f"{3600 * done[key]:.1f}" for key in ("predicted", "measured")]
        whole.append([name, done["workers"], done["cores"], *hour, f"{done['error']:+.0%}", done["limit"]])
    worst = max(abs(done["error"]) for done in content["checks"])
    return [
        "## The check",
        f"A slide that the fit has not seen ({_title(content['checked'])}), by stage:",
        table(rows),
        "The engine as it is, its stages overlapping, on the same slide:",
        table(whole),
        _text(
            f"The largest error here is {worst:.0%}. What follows is no better than that, and less sure the further it",
            "goes from the sizes that were measured.",
        ),
    ]


def _one_gpu(content: dict[str, Any]) -> list[str]:
    assumed, names = content["assumed"], ("GPUs", "cores", "workers", "storage")
    rows = [["tiles/s of the GPU (assumed)", "workers", "slides a day", "limited by", "GPU busy",
             *(f"{name} allow" for name in names)]]  # fmt: skip
    for one in content["planning"]["one_gpu"]:
        busy = one["a_day"] / one["allowed"]["GPUs"]
        allowed = [f"{one['allowed'][name]:,.0f}" for name in names]
        rows.append([
            f"{one['gpu_tiles']:,}", one["workers"], f"{one['a_day']:,.0f}", one["limit"], f"{busy:.0%}", *allowed,
        ])  # fmt: skip
    return [
        "## 1,000 slides a day on one H100",
        _text(
            f"One GPU, {assumed['cores']} cores, {assumed['storage'] / 1e9:g} GB/s of storage; slides as above.",
            "What an",
            "H100 does is not known here; `lightmuseg segment --runtime auto` prints it, and so which rows are yours.",
        ),
        table(rows),
    ]


def _cluster(content: dict[str, Any]) -> list[str]:
    rows = [["slides a day", "tiles/s of a GPU (assumed)", "tiles/s", "GPUs", "cores", "workers", "storage, GB/s"]]
    for one in content["planning"]["days"]:
        rows.append([
            f"{one['slides']:,}", f"{one['gpu_tiles']:,}", f"{one['tiles']:,.0f}", f"{one['GPUs']:,.1f}",
            f"{one['cores']:,.1f}", f"{one['workers']:,.1f}", f"{one['storage'] / 1e9:.2f}",
        ])  # fmt: skip
    return [
        "## 100,000 slides a day on a cluster",
        "What is kept busy all day, with nothing to spare; each worker has one core and shares a GPU.",
        table(rows),
    ]


def _sensitivity(content: dict[str, Any]) -> list[str]:
    rows = [["slides", "tiles each", "tiles/s", "GPUs", "cores", "workers", "storage, MB/s"]]
    for name, one in content["planning"]["variants"].items():
        rows.append([
            name, f"{one['slide_tiles']:,.0f}", f"{one['tiles']:,.0f}", f"{one['GPUs']:.2f}", f"{one['cores']:.1f}",
            f"{one['workers']:.1f}", f"{one['storage'] / 1e6:,.0f}",
        ])  # fmt: skip
    return [
        "## What it depends on",
        _text(
            f"1,000 slides a day at {content['assumed']['gpu_tiles'][1]:,} tiles a second (assumed); one thing changed",
            "at a time.",
        ),
        table(rows),
    ]


def _limits(content: dict[str, Any]) -> list[str]:
    sides = content["options"]["sides"]
    return [
        "## Limits",
        _list(
            "The slides are a few blocks of two patients' pixels, repeated. "
            f"{sides[0]:,} to {sides[-1]:,} pixels were measured; {content['assumed']['side']:,} is the model's word. "
            "Polygons of other tissue and of other weights take more or less to write.",
            "Copying tiles to a GPU and logits back is not in the model, and a GPU's host is taken to have cores like "
            "these.",
            "The storage was a local disk with everything cached, so no waiting is in the seconds. The model asks for "
            "bytes a second only, not for latency.",
            "A cluster is taken to cost nothing of its own, and its slides to be of one size.",
        ),
    ]


def _error(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.0%}" if measured else ""


def _title(name: str) -> str:
    side, tissue = name.removesuffix(".tif").split("px-")
    return f"{int(side):,} px, {tissue.removesuffix('pct')}% tissue"
