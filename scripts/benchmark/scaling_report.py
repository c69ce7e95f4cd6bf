"""What scaling.py measured, as JSON, Markdown and picture; run as a script it makes them anew from the JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fire
from figures import DOCS
from scaling_pages import page
from throughput import (
    DAY_S,
    Costs,
    Machine,
    Slide,
    bottleneck,
    costs_of,
    needed,
    seconds_of_a_slide,
    slide_of,
    slides_a_second,
)

from lightmuseg.areas.tissue import MARGIN_UM
from lightmuseg.files import write_whole
from lightmuseg.text_files import write_json

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise SystemExit("scaling: error: needs matplotlib: pip install 'lightmuseg[plots]'.") from error

# What no measurement here says. Tiles a second of the network on one GPU: the paper's on an RTX 3090, and a range.
ASSUMED: dict[str, Any] = {
    "paper_tiles": 106, "gpu_tiles": [100, 500, 2000], "side": 80_000, "tissue": 0.3, "overlap": 0.25, "mpp": 0.25,
    "cores": 16, "workers": [1, 4, 16], "storage": 1e9, "cluster_storage": 10e9,
}  # fmt: skip
DAYS = (1_000, 100_000)
GPUS = [2**power for power in range(9)]
VARIANTS: dict[str, dict[str, Any]] = {
    "as above": {}, "overlap 0": {"overlap": 0.0}, "10% tissue": {"tissue": 0.1}, "60% tissue": {"tissue": 0.6},
    "40,000 px": {"side": 40_000}, "60,000 px": {"side": 60_000},
}  # fmt: skip
COLOURS = {"GPUs": "tab:blue", "cores": "tab:orange", "workers": "tab:red", "storage": "tab:green"}
# the first below the others, so that points at one place are all seen
MARKERS = (("o", 130), ("s", 60), ("^", 34))


def write_report(docs: Path, measured: dict[str, Any]) -> dict[str, Any]:
    """Write docs/benchmarks/scaling.json, docs/scaling.md and docs/images/scaling.png.

    Args:
        docs: the folder.
        measured: what scaling.py found.

    Returns:
        The JSON's content.
    """
    costs = costs_of(measured["costs"]["network"])
    content = {**measured, "assumed": ASSUMED, "predicted": _predicted(costs, measured), "planning": planning(costs)}
    text = page(content)
    write_json(docs / "benchmarks" / "scaling.json", content)
    write_whole(docs / "scaling.md", lambda path: path.write_text(text, encoding="utf-8"))
    write_whole(docs / "images" / "scaling.png", lambda path: _plot(path, content))
    return content


def _predicted(costs: Costs, measured: dict[str, Any]) -> dict[str, Any]:
    """What the costs say of the slide that they are checked on."""
    one = next(one for one in measured["measured"]["network"] if one["slide"] == measured["checked"])
    slide = Slide(one["gigapixels"], one["tiles"], one["tissue"])
    return {
        "cpu": {stage: cost.of(slide) for stage, cost in costs.cpu.items()},
        "read": sum(cost.of(slide) for cost in costs.read.values()),
        "written": sum(cost.of(slide) for cost in costs.written.values()),
    }


def planning(costs: Costs) -> dict[str, Any]:
    """What the costs say of many slides, with what is assumed."""
    variants = {name: _slide(**changed) for name, changed in VARIANTS.items()}
    slide = variants["as above"]
    one_gpu, cluster = [], []
    for rate in ASSUMED["gpu_tiles"]:
        for workers in ASSUMED["workers"]:
            machine = _machine(1, rate, workers, ASSUMED["storage"])
            limit, most = bottleneck(costs, machine, slide)
            allowed = {name: DAY_S * value for name, value in slides_a_second(costs, machine, slide).items()}
            seconds = seconds_of_a_slide(costs, machine, slide)
            one_gpu.append({"gpu_tiles": rate, "workers": workers, "a_day": DAY_S * most, "limit": limit,
                            "allowed": allowed, "seconds": seconds})  # fmt: skip
        for gpus in GPUS:
            machine = _machine(gpus, rate, gpus * max(ASSUMED["workers"]), ASSUMED["cluster_storage"])
            limit, most = bottleneck(costs, machine, slide)
            cluster.append({"gpu_tiles": rate, "gpus": gpus, "a_day": DAY_S * most, "limit": limit})
    return {
        "slide": {
            "tiles": slide.tiles, "gigapixels": slide.gigapixels, "bytes": costs.bytes_of(slide),
            "cpu": {name: cost.of(slide) for name, cost in costs.cpu.items()},
        },
        "days": [
            {"slides": day, "gpu_tiles": rate, **needed(costs, slide, day, rate)}
            for day in DAYS
            for rate in ASSUMED["gpu_tiles"]
        ],
        "one_gpu": one_gpu,
        "cluster": cluster,
        "variants": {
            name: {
                "slide_tiles": one.tiles,
                "cpu": sum(cost.of(one) for stage, cost in costs.cpu.items() if stage != "network"),
                **needed(costs, one, DAYS[0], ASSUMED["gpu_tiles"][1]),
            }
            for name, one in variants.items()
        },
    }  # fmt: skip


def _slide(**changed: Any) -> Any:
    values = {name: ASSUMED[name] for name in ("side", "tissue", "overlap")}
    return slide_of(**{**values, **changed}, margin=MARGIN_UM / ASSUMED["mpp"])


def _machine(gpus: int, rate: float, workers: int, storage: float) -> Machine:
    cores = gpus * ASSUMED["cores"]
    return Machine(cores, workers, max(1, cores // workers), gpus, rate, storage)


def _plot(path: Path, content: dict[str, Any]) -> None:
    assumed, cluster = content["assumed"], content["planning"]["cluster"]
    figure, axis = plt.subplots(figsize=(7.5, 4.8))
    for rate, (marker, size) in zip(assumed["gpu_tiles"], MARKERS):
        points = [one for one in cluster if one["gpu_tiles"] == rate]
        axis.plot([one["gpus"] for one in points], [one["a_day"] for one in points], color="lightgrey", zorder=1)
        axis.scatter([], [], color="grey", marker=marker, s=size, label=f"{rate:,} tiles/s a GPU")
        for one in points:
            axis.scatter(
                one["gpus"],
                one["a_day"],
                color=COLOURS[one["limit"]],
                marker=marker,
                s=size,
                edgecolor="white",
                zorder=2,
            )
    for name in dict.fromkeys(one["limit"] for one in cluster):
        axis.scatter([], [], color=COLOURS[name], marker="D", label=f"limited by {name}")
    for day in DAYS:
        axis.axhline(day, color="black", linewidth=0.8, linestyle=":")
        axis.annotate(f"{day:,} a day", (GPUS[2], day), ha="left", va="bottom", fontsize=9)
    axis.set(
        xscale="log", yscale="log", xlabel="GPUs", ylabel="slides a day",
        title=f"Slides of {assumed['side']:,} px, {assumed['tissue']:.0%} tissue, overlap {assumed['overlap']:g}; "
        f"{assumed['cores']} cores and {max(assumed['workers'])} workers a GPU,\n"
        f"storage of {assumed['cluster_storage'] / 1e9:g} GB/s for all. Rates of the GPU are assumed.",
    )  # fmt: skip
    axis.set_xticks(GPUS, [str(number) for number in GPUS])
    axis.minorticks_off()
    axis.title.set_fontsize(9.5)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def again(docs: str = str(DOCS.parent)) -> None:
    """Write the report anew from what was measured.

    Args:
        docs: folder that holds benchmarks/scaling.json.
    """
    write_report(Path(docs), json.loads((Path(docs) / "benchmarks" / "scaling.json").read_text(encoding="utf-8")))


if __name__ == "__main__":
    fire.Fire(again)
