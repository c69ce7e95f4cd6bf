"""What the curves of active_learning.py say, as JSON, Markdown and picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.integrate import trapezoid

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError as error:
    raise SystemExit("active_learning: error: needs matplotlib: pip install 'lightmuseg[plots]'.") from error

from lightmuseg.files import write_whole
from lightmuseg.text_files import write_json

BASELINE, CEILING = "random", "all tiles"
COLOURS = {"random": "black", "entropy": "tab:orange", "epistemic": "tab:blue"}
MEANINGS = {
    "random": "by chance",
    "entropy": "mean predictive entropy",
    "epistemic": "mean mutual information of Monte Carlo dropout passes",
}
ORIGINS = {
    "BCSS": ("the region of TCGA-A2-A0D2", "the region of TCGA-A2-A1G6"),
    "CAMELYON": ("the first 16 pictures by name", "the other 16"),
}
RESAMPLES = 10_000


def write_report(docs: Path, curves: Sequence[dict[str, Any]], record: dict[str, Any]) -> dict[str, Any]:
    """Write the three files into ``docs``.

    Args:
        docs: the folder.
        curves: one a source, strategy and seed: with the ``tiles`` annotated and the ``dice`` after each training.
        record: how they were made.

    Returns:
        The JSON's content.
    """
    names = dict.fromkeys(one["source"] for one in curves)
    results = {name: summary([one for one in curves if one["source"] == name]) for name in names}
    kept = [{key: one[key] for key in ("source", "strategy", "seed", "labelled", "tiles", "dice")} for one in curves]
    content = {**record, "results": results, "curves": kept}
    text = page(content)
    write_json(docs / "benchmarks" / "active_learning.json", content)
    write_whole(docs / "benchmarks" / "active_learning.md", lambda path: path.write_text(text, encoding="utf-8"))
    write_whole(docs / "images" / "active_learning.png", lambda path: _plot(path, results))
    return content


def summary(curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One source's means and deviations over seeds, and the differences from random, seed by seed."""
    of = {one["strategy"]: [] for one in curves}
    for one in sorted(curves, key=lambda one: one["seed"]):
        of[one["strategy"]].append(one)
    dice = {strategy: np.array([one["dice"] for one in ones]) for strategy, ones in of.items()}
    tiles = of[BASELINE][0]["tiles"]
    area = {s: trapezoid(d, tiles, axis=1) / (tiles[-1] - tiles[0]) for s, d in dice.items() if s != CEILING}
    result: dict[str, Any] = {
        "tiles": tiles,
        "all_tiles": of[CEILING][0]["tiles"][0],
        "dice": {s: {"mean": d.mean(axis=0).tolist(), "deviation": _deviation(d)} for s, d in dice.items()},
        "area": {s: {"mean": a.mean().item(), "deviation": _deviation(a)} for s, a in area.items()},
        "against_random": {},
    }
    for strategy in (s for s in area if s != BASELINE):
        whole = interval(area[strategy] - area[BASELINE])
        by_tiles = [interval(difference) for difference in (dice[strategy] - dice[BASELINE]).T]
        found = {"by_tiles": by_tiles, "area": whole, "finding": finding(whole)}
        result["against_random"][strategy] = found
    return result


def _deviation(values: np.ndarray) -> Any:
    """Over the first axis; 0 of a single seed."""
    return (values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros_like(values[0])).tolist()


def interval(differences: np.ndarray) -> dict[str, float]:
    """The mean of one number a seed, and the middle 95% of the means of resampled seeds."""
    chosen = np.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[chosen].mean(axis=1), [2.5, 97.5])
    return {"mean": differences.mean().item(), "low": low.item(), "high": high.item()}


def finding(area: dict[str, float]) -> str:
    """What the interval of a difference from random says."""
    if area["low"] > 0:
        return "beats random"
    return "does not beat random: it is worse" if area["high"] < 0 else "cannot be told from random"


def page(content: dict[str, Any]) -> str:
    """The Markdown, made of the JSON's content alone."""
    protocol, training, results = content["protocol"], content["training"], content["results"]
    seeds = content["seeds"]
    last = protocol["start"] + protocol["rounds"] * protocol["added"]
    lines = ["# Does it help to annotate where the network is unsure?", ""]
    lines += [f"{sentence}  " for sentence in _findings(results)]
    lines += [
        "",
        "![Dice against annotated tiles](../images/active_learning.png)",
        "",
        "**Data.** "
        + " ".join(
            f"{name}: {size['pool']} tiles to annotate from ({ORIGINS[name][0]}), {size['test']} to test on "
            f"({ORIGINS[name][1]})."
            for name, size in content["sources"].items()
        )
        + f" Tiles are {training['tile_size']} x {training['tile_size']} pixels of 0.5 um, cut side by side.",
        "",
        f"**Protocol.** The annotator is the mask. Each of {len(seeds)} seeds gives {protocol['start']} tiles, the "
        f"same for every strategy; {protocol['rounds']} rounds add {protocol['added']} tiles each, up to {last}. In "
        f"every round the network (V1: encoder frozen, started from `{content['weights']}`; decoder random by the "
        f"seed; dropout {training['dropout']}) is trained anew on all tiles annotated so far: "
        f"{protocol['steps']} steps of {training['batch_size']} tiles, structure loss, Adam from "
        f"{training['learning_rate']} falling linearly to 0, the bundle's augmentation, bfloat16. Strategies: "
        + "; ".join(f"`{name}`: {meaning}" for name, meaning in MEANINGS.items())
        + f" ({protocol['passes']} passes). *All tiles* is the same training on the whole pool. Dice is of all "
        "pixels of the test tiles together. `python scripts/benchmark/active_learning.py`",
        "",
        "Dice in percent, mean ± standard deviation over the seeds. *Area* is the mean height of the curve (the area "
        "under it by its width). Differences are seed by seed, with the 95% bootstrap interval over seeds.",
    ]
    for name, result in results.items():
        lines += ["", f"## {name}", "", *_table(result)]
    lines += [
        "",
        "## Limits",
        "",
        "- BCSS is one region each of two patients: most of what is lost is lost between the patients, and more tiles "
        "of the first cannot bring it back. One other patient may turn the order around.",
        "- CAMELYON is 32 pictures with blocky masks of few slides. Their names do not tell the slide, so pool and "
        "test may share slides.",
        f"- The networks are small trainings ({protocol['steps']} steps, encoder frozen, small tiles), far from what "
        "the bundle's own training reaches, and as long for 2 tiles as for all.",
        f"- {len(seeds)} seeds are few: a bootstrap over them gives intervals that are too narrow, and nothing "
        "corrects for several comparisons. Differences may be smaller than what can be seen here.",
        "- Every tile costs the annotator the same here. In fact unsure tiles, with many borders, take longer.",
        "",
        *(f"- {key}: {content[key]}" for key in ("seeds", "weights_sha256", "lightmuseg", "commit", "python",
                                                 "packages", "platform")),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _findings(results: dict[str, Any]) -> list[str]:
    """A sentence a source and strategy, and one for all."""
    sentences, kinds = [], []
    for name, result in results.items():
        for strategy, found in result["against_random"].items():
            kinds.append(found["finding"])
            sentences.append(f"{name}: `{strategy}` {found['finding']} (area {_difference(found['area'])} points).")
    wins = kinds.count("beats random")
    if wins == len(kinds):
        verdict = "On these tiles uncertainty beats random."
    elif wins:
        verdict = f"On these tiles uncertainty beats random in {wins} of {len(kinds)} comparisons, so not reliably."
    else:
        verdict = "On these tiles uncertainty was not seen to beat random."
    return [f"**{verdict}**", *sentences]


def _difference(value: dict[str, float]) -> str:
    mean, low, high = (100 * value[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _cell(mean: float, deviation: float) -> str:
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}"


def _table(result: dict[str, Any]) -> list[str]:
    tiles = result["tiles"]
    lines = [f"| tiles | {' | '.join(map(str, tiles))} | area | all {result['all_tiles']} |"]
    lines.append("|---" * (len(tiles) + 3) + "|")
    for strategy, area in result["area"].items():
        dice = result["dice"][strategy]
        cells = [_cell(*pair) for pair in zip(dice["mean"], dice["deviation"])]
        lines.append(f"| {strategy} | {' | '.join(cells)} | {_cell(area['mean'], area['deviation'])} | |")
    ceiling = result["dice"][CEILING]
    lines.append(
        f"| {CEILING} |" + " |" * (len(tiles) + 1) + f" {_cell(ceiling['mean'][0], ceiling['deviation'][0])} |"
    )
    for strategy, found in result["against_random"].items():
        cells = [_difference(value) for value in (*found["by_tiles"], found["area"])]
        lines.append(f"| {strategy} - {BASELINE} | {' | '.join(cells)} | |")
    return lines


def _plot(path: Path, results: dict[str, Any]) -> None:
    figure, axes = plt.subplots(1, len(results), figsize=(5.5 * len(results), 4.2), squeeze=False)
    for axis, (name, result) in zip(axes[0], results.items()):
        tiles = result["tiles"]
        for strategy in result["area"]:
            mean, deviation = (100 * np.array(result["dice"][strategy][key]) for key in ("mean", "deviation"))
            colour = COLOURS[strategy]
            axis.plot(tiles, mean, "o-", color=colour, label=strategy)
            axis.fill_between(tiles, mean - deviation, mean + deviation, color=colour, alpha=0.15, linewidth=0)
        ceiling = 100 * result["dice"][CEILING]["mean"][0]
        axis.axhline(ceiling, color="grey", linestyle="--", label=f"all {result['all_tiles']} tiles")
        axis.set(title=name, xlabel="annotated tiles", ylabel="Dice on the test tiles (%)", xticks=tiles)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right")
    figure.suptitle("Mean over seeds; bands: ± standard deviation", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
