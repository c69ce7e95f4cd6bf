"""The Markdown of docs/scaling.md, made of the content of docs/benchmarks/scaling.json alone."""

from __future__ import annotations

from typing import Any

from figures import table

ORDER = ("planning", "reading", "network", "merging", "writing", "hashing", "other")
PART = "writing: "


def page(content: dict[str, Any]) -> str:
    """All of it."""
    parts = (_answer, _measured, _model, _check, _one_gpu, _cluster, _sensitivity, _limits)
    return "\n\n".join(part(content) for part in parts) + "\n"


def _answer(content: dict[str, Any]) -> str:
    assumed, planning = content["assumed"], content["planning"]
    rates = assumed["gpu_tiles"]
    slide, cpu = planning["slide"], planning["slide"]["cpu"]
    first = {one["gpu_tiles"]: one for one in planning["one_gpu"] if one["workers"] == max(assumed["workers"])}
    enough = [f"{rate:,}" for rate in rates if first[rate]["a_day"] >= 1000]
    alone = next(one for one in planning["one_gpu"] if one["workers"] == 1 and one["gpu_tiles"] == rates[1])
    longest = max((stage for stage in cpu if stage != "network"), key=lambda stage: cpu[stage])
    many = next(one for one in planning["days"] if one["slides"] == 100_000 and one["gpu_tiles"] == rates[1])
    day = next(one for one in planning["days"] if one["slides"] == 1000)
    return f"""# How many slides a day

Costs of a slide were measured on two cores without a GPU; a model made of them says what a GPU or a cluster would do. **No
GPU was measured**: the network's rate on one is a parameter, {rates[0]:,}, {rates[1]:,} or {rates[2]:,} tiles a second. The only
published figure is the paper's {assumed["paper_tiles"]} on an RTX 3090. {content["processor"]}. Made by
`scripts/benchmark/scaling.py`; every figure is from [scaling.json](benchmarks/scaling.json).

- **A slide** of {assumed["side"]:,} x {assumed["side"]:,} pixels with {assumed["tissue"]:.0%} tissue is \
{slide["tiles"]:,.0f} tiles at an overlap of {assumed["overlap"]:g}. Beside the network it costs
  {sum(cpu.values()) - cpu["network"]:,.0f} CPU-seconds, {cpu[longest]:,.0f} of them {longest}.
- **1,000 slides a day** are {day["tiles"]:,.0f} tiles a second without a pause. One GPU with {assumed["cores"]} cores and \
{max(assumed["workers"])} workers does it \
{"at " + " and ".join(enough) + " tiles a second" if enough else "at none of these rates"}.
- **100,000 slides a day** take, at {rates[1]:,} tiles a second, {many["GPUs"]:,.0f} GPUs, {many["cores"]:,.0f} cores and \
{many["storage"] / 1e9:.1f} GB/s of storage.
- **The first bottleneck** with one worker a GPU is the worker itself: at {rates[1]:,} tiles a second a slide takes \
{alone["seconds"]:,.0f} s, of which the network works
  {slide["tiles"] / rates[1]:,.0f} s. The rest is mostly {longest}, which one thread does after the last tile. Several \
workers a GPU close the gap; with {max(assumed["workers"])} the limit is
  {", ".join(f"{first[rate]['limit']} at {rate:,}" for rate in rates)} tiles a second.

![Slides a day against GPUs](images/scaling.png)"""


def _measured(content: dict[str, Any]) -> str:
    measured = content["measured"]["network"]
    rows = [["slide", "tiles", *(f"{stage}, s" for stage in ORDER), "of writing: " + ", ".join(_parts(measured[0])),
             "peak memory, MiB"]]  # fmt: skip
    moved = [["slide", "file, MB", "read by calls, MB", "kB a tile, reading", "written by calls, MB"]]
    for one in measured:
        costs, name = one["costs"], _title(one["slide"])
        parts = ", ".join(f"{costs[PART + part]['cpu']:.2f}" for part in _parts(one))
        rows.append([name, one["tiles"], *(f"{costs[stage]['cpu']:.2f}" for stage in ORDER if stage in costs), parts,
                     one["peak MiB"]])  # fmt: skip
        moved.append([
            name, f"{one['bytes'] / 1e6:.1f}", f"{costs['slide']['read'] / 1e6:.1f}",
            f"{costs['reading']['read'] / one['tiles'] / 1e3:.0f}", f"{costs['slide']['written'] / 1e6:.1f}",
        ])  # fmt: skip
    return f"""## What a slide costs

CPU-seconds of all threads, the stages one after the other; median of {content["options"]["rounds"]} runs (the largest slide one). Slides of
real BCSS pixels, JPEG, 0.25 um/px, overlap {content["options"]["overlap"]:g}; files in the page cache. Starting a worker and proving its
runtime is not in it.

{table(rows)}

Tiles share the file's blocks with their neighbours, and each block is looked at before it is decoded, so calls read more
than the file holds; what the page cache keeps never reaches the storage. The hash in `run.json` reads the whole file.

{table(moved)}"""


def _model(content: dict[str, Any]) -> str:
    costs = content["costs"]["network"]
    rows = [["", "fixed", "a gigapixel of slide", "a tile"]]
    for stage in (stage for stage in ORDER if stage in costs["cpu"]):
        cost = costs["cpu"][stage]
        parts = cost["fixed"], cost["per_gigapixel"], 1000 * cost["per_tile"]
        rows.append([f"{stage}, CPU", f"{parts[0]:.2f} s", f"{parts[1]:.2f} s", f"{parts[2]:.2f} ms"])
    for name in ("read", "written"):
        cost = costs[name]
        parts = cost["fixed"] / 1e6, cost["per_gigapixel"] / 1e6, cost["per_tile"] / 1e3
        rows.append([name, f"{parts[0]:.1f} MB", f"{parts[1]:.0f} MB", f"{parts[2]:.0f} kB"])
    *fitted, _ = content["options"]["sides"]
    return f"""## The model

Slides a second are the least of

- GPUs x their tiles a second / tiles of a slide;
- cores / CPU-seconds of a slide;
- workers / seconds of a slide in one worker: the longest of reading, network and merging, which overlap, and all other
  stages, which one thread does before and after;
- storage's bytes a second / bytes that a slide reads and writes, as if nothing were cached.

Each cost is fixed + gigapixels + tiles, fitted to the slides of {" and ".join(f"{side:,}" for side in fitted)} pixels (relative least squares,
nothing negative). `scripts/benchmark/throughput.py` is all of it.

{table(rows)}"""


def _check(content: dict[str, Any]) -> str:
    size = content["options"]["sides"][-1]
    one = next(one for one in content["measured"]["network"] if one["slide"] == content["checked"])
    costs = content["costs"]["network"]
    rows = [["", "predicted", "measured", "error"]]

    def add(name: str, cost: dict[str, float], measured: float, unit: float, sign: str) -> None:
        value = cost["fixed"] + cost["per_gigapixel"] * one["gigapixels"] + cost["per_tile"] * one["tiles"]
        error = f"{value / measured - 1:+.0%}" if measured else ""
        rows.append([name, f"{value / unit:.2f} {sign}", f"{measured / unit:.2f} {sign}", error])

    for stage in (stage for stage in ORDER if stage in costs["cpu"]):
        add(f"{stage}, CPU", costs["cpu"][stage], one["costs"][stage]["cpu"], 1, "s")
    for name in ("read", "written"):
        add(name, costs[name], one["costs"]["slide"][name], 1e6, "MB")
    whole = [["network", "workers", "cores", "slides an hour, predicted", "measured", "error", "limited by"]]
    for done in content["checks"]:
        name = "the bundle's, on the CPU" if done["network"] == "network" else "one that costs nothing"
        hour = [f"{3600 * done[key]:.1f}" for key in ("predicted", "measured")]
        whole.append([name, done["workers"], done["cores"], *hour, f"{done['error']:+.0%}", done["limit"]])
    worst = max(abs(done["error"]) for done in content["checks"])
    return f"""## The check

A slide of {size:,} pixels, which the fit has not seen ({_title(content["checked"])}), by stage:

{table(rows)}

And the engine as it is, its stages overlapping, on that slide:

{table(whole)}

The largest error of the second table is {worst:.0%}: take what follows as good to that, and less where it goes far beyond the sizes measured."""


def _one_gpu(content: dict[str, Any]) -> str:
    assumed = content["assumed"]
    rows = [["GPU, tiles/s", "workers", "slides a day", "limited by", "GPU busy", "GPU allows", "cores allow",
             "workers allow", "storage allows"]]  # fmt: skip
    for one in content["planning"]["one_gpu"]:
        allowed = one["allowed"]
        rows.append([
            f"{one['gpu_tiles']:,}", one["workers"], f"{one['a_day']:,.0f}", one["limit"],
            f"{one['a_day'] / allowed['GPUs']:.0%}", *(f"{allowed[name]:,.0f}" for name in
                                                       ("GPUs", "cores", "workers", "storage")),
        ])  # fmt: skip
    return f"""## 1,000 slides a day on one H100

One GPU, {assumed["cores"]} cores, {assumed["storage"] / 1e9:g} GB/s; slides as above. The GPU's tiles a second are assumed, not measured.

{table(rows)}"""


def _cluster(content: dict[str, Any]) -> str:
    rows = [["slides a day", "GPU, tiles/s (assumed)", "tiles/s", "GPUs", "cores", "workers", "storage, GB/s"]]
    for one in content["planning"]["days"]:
        rows.append([
            f"{one['slides']:,}", f"{one['gpu_tiles']:,}", f"{one['tiles']:,.0f}", f"{one['GPUs']:,.1f}",
            f"{one['cores']:,.1f}", f"{one['workers']:,.1f}", f"{one['storage'] / 1e9:.2f}",
        ])  # fmt: skip
    return f"""## 100,000 slides a day on a cluster

What is kept busy all day, with nothing to spare; a worker has one core and shares a GPU.

{table(rows)}"""


def _sensitivity(content: dict[str, Any]) -> str:
    rate = content["assumed"]["gpu_tiles"][1]
    rows = [["slides", "tiles each", "tiles/s", "GPUs", "cores", "workers", "storage, MB/s"]]
    for name, one in content["planning"]["variants"].items():
        rows.append([
            name, f"{one['slide_tiles']:,.0f}", f"{one['tiles']:,.0f}", f"{one['GPUs']:.2f}", f"{one['cores']:.1f}",
            f"{one['workers']:.1f}", f"{one['storage'] / 1e6:,.0f}",
        ])  # fmt: skip
    return f"""## What it depends on

1,000 slides a day at {rate:,} tiles a second a GPU (assumed); one thing changed at a time.

{table(rows)}"""


def _limits(content: dict[str, Any]) -> str:
    sides = content["options"]["sides"]
    return f"""## Limits

- The slides are a few blocks of two patients' pixels, repeated; {sides[0]:,} to {sides[-1]:,} pixels were measured, {content["assumed"]["side"]:,} is the
  model's word. Polygons of other tissue, and of better weights, cost more or less to write.
- The GPU's rate is a guess, and copying tiles to it and logits back is not in the model. Its host's cores are taken to
  be as fast as these.
- Storage was a local disk with everything cached: no waiting is in the measured seconds. The model asks only for bytes
  a second, not for latency.
- A cluster is taken to have no cost of its own, and its slides to be one size."""


def _parts(one: dict[str, Any]) -> list[str]:
    return [stage.removeprefix(PART) for stage in one["costs"] if stage.startswith(PART)]


def _title(name: str) -> str:
    side, tissue = name.removesuffix(".tif").split("px-")
    return f"{int(side):,} px, {tissue.removesuffix('pct')}% tissue"
