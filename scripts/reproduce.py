"""Reproduce a table of the paper: train, evaluate, and put our figures beside the published ones.

    python scripts/reproduce.py table1 --dataset bundle/data/bcss --output results/table1
    python scripts/reproduce.py table1 --dataset bundle/data/bcss --output results/few --rows v2,resnet34 --seeds 1,2

Every other option goes to the training (and --amp, --tile_size, --num_workers to the evaluation too); see
bundle/configs/train.json. --checkpoints FOLDER takes FOLDER/<row>-<task>.pt instead of training. Run again, it goes on
where it was: a training after its last epoch, and what is evaluated already is not evaluated again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from report import PLAIN, write_report

from lightmuseg.data import manifest_hash
from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.networks.unet import BASELINES
from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_json

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "bundle" / "configs"
CLASSES = tuple(json.loads((CONFIGS / "multiclass.json").read_text(encoding="utf-8"))["classes"])

# What a row adds to train.json: overrides, and options of its own.
ROWS: dict[str, tuple[str, list[str], dict[str, Any]]] = {
    **{name: (f"U-Net {title}", ["baseline.json"], {"backbone": name}) for title, name in BASELINES.items()},
    "vit": ("LightMuSeg, ViT encoder", ["vit.json"], {}),
    "efficientnet_b0": ("LightMuSeg, EfficientNet-B0 encoder", ["efficientnet_b0.json"], {}),
    "v1": ("LightMuSeg V1", ["v1.json"], {}),
    "v2": ("LightMuSeg V2", [], {}),
    "v3": ("LightMuSeg V3", ["v3.json"], {}),
    "v1_no_msffm": ("LightMuSeg V1 without MSFFM", ["v1.json", "no_msffm.json"], {}),
    "v3_no_msffm": ("LightMuSeg V3 without MSFFM", ["v3.json", "no_msffm.json"], {}),
}
# What a task adds, and its columns: the table's name for a figure and the evaluation's.
BINARY = {"dice": "val_mean_dice", "iou": "val_mean_iou", "mae": "val_mae"}
TASKS: dict[str, tuple[list[str], dict[str, str]]] = {
    "binary": (
        [],
        {
            **BINARY,
            "weighted_f": "val_weighted_f_measure",
            "s_measure": "val_structure_measure",
            "e_measure": "val_alignment_measure",
            "sensitivity": "val_sensitivity",
            "pooled_dice": "val_pooled_dice",
        },
    ),
    "multiclass": (
        ["multiclass.json"],
        {
            f"{column}_{name}": f"{metric}_{name}"
            for name in CLASSES
            for column, metric in (("dice", "val_mean_dice"), ("iou", "val_pooled_iou"), ("f1", "val_pooled_dice"))
        },
    ),
    "weak": (
        ["multiclass.json", "weak.json"],
        {**{f"iou_{name}": f"val_pooled_iou_{name}" for name in CLASSES}, "iou": "val_pooled_iou"},
    ),
}
TABLES: dict[str, tuple[list[str], list[str]]] = {
    "table1": ([*BASELINES.values(), "v1", "v2", "v3"], ["binary"]),
    "table2": (["v2"], ["weak"]),
    "table3": (["vit", "efficientnet_b0", "v1", "v2", "v3", "v1_no_msffm", "v3_no_msffm"], ["binary", "multiclass"]),
}
# Options of the training that an evaluation needs too.
SHARED = ("amp", "tile_size", "num_workers", "classes", "ignored_codes", "merged_codes")


def reproduce(
    table: str,
    dataset: str,
    output: str,
    rows: str = "",
    seeds: str = "42",
    tasks: str = "",
    checkpoints: str = "",
    encoder_weights: str = "auto",
    **options: Any,
) -> None:
    """Write <table>.md, .json and .png of one of the paper's tables into a folder.

    Args:
        table: table1, table2 or table3.
        dataset: a prepared dataset; for table2 BCSS-WSSS.
        output: folder of the runs and the table; tables of one dataset can share it, and their runs.
        rows: of the table, by name with commas between; by default all of the paper's.
        seeds: whole numbers with commas between; the figures are means over them.
        tasks: of table3, binary or multiclass; by default those of which the paper gives the row's figures.
        checkpoints: a folder of weights <row>-<task>.pt to evaluate instead of training.
        encoder_weights: auto, imagenet, or a folder of files <backbone>.pth; backbones that have none there start
            as with auto.
        options: passed to the training, such as --max_epochs 8.
    """
    report_faults_in_one_line()
    if table not in TABLES:
        raise InputError(f"{table}: no such table; one of {', '.join(TABLES)}.")
    chosen_rows = _chosen(rows, TABLES[table][0], ROWS, "rows")
    chosen_tasks = _chosen(tasks, TABLES[table][1], TASKS, "tasks")
    chosen_seeds = _seeds(seeds)
    _check_options(options)
    manifest_hash(dataset)
    published = json.loads((Path(__file__).parent / "paper_tables.json").read_text(encoding="utf-8"))[table]
    folder, results = Path(output), []
    for name in chosen_rows:
        speed = _speed(name, folder / f"{name}-speed.json")
        for task in chosen_tasks:
            if not tasks and name in published and not published[name].keys() & TASKS[task][1].keys():
                continue
            for seed in chosen_seeds:
                run = folder / f"{name}-{task}-seed{seed}"
                print(f"== {ROWS[name][0]}, {task}, seed {seed}", flush=True)
                weights = Path(checkpoints) / f"{name}-{task}.pt" if checkpoints else run / "train" / "model.pt"
                if not checkpoints:
                    start = _start(name, encoder_weights)
                    _train(name, task, dataset, run / "train", {**options, "seed": seed, "encoder_weights": start})
                metrics = _evaluate(name, task, dataset, run / "test", weights, options)
                figures = _figures(metrics, TASKS[task][1])
                start = _read(run / "train" / "run.json")["encoder_weights"] if not checkpoints else weights.name
                results.append(
                    {
                        "row": name,
                        "task": task,
                        "seed": seed,
                        "start": start,
                        "figures": figures | {key: speed[key] for key in PLAIN},
                        "hardware": speed["hardware"],
                    }
                )
    titles = {name: ROWS[name][0] for name in chosen_rows}
    record = {**environment(), "table": table, **_dataset(dataset), "seeds": chosen_seeds, "options": options}
    write_report(folder, titles, results, published, record)
    print(f"{folder}: {table}.md, {table}.json, {table}.png")


def _start(name: str, encoder_weights: str) -> str:
    if not Path(encoder_weights).is_dir():
        return encoder_weights
    config = ConfigParser()
    config.read_config(_configs(name, "binary"))
    backbone = ROWS[name][2].get("backbone", config["backbone"])
    path = Path(encoder_weights).resolve() / f"{backbone}.pth"
    return str(path) if path.is_file() else "auto"


def _names(text: Any) -> list[str]:
    parts = text if isinstance(text, (tuple, list)) else str(text).split(",")
    return [str(part).strip() for part in parts if str(part).strip()]


def _chosen(text: Any, default: list[str], known: dict[str, Any], option: str) -> list[str]:
    names = _names(text) or default
    for name in names:
        if name not in known:
            raise InputError(f"--{option} {name}: not known; one of {', '.join(known)}.")
    return names


def _seeds(text: Any) -> list[int]:
    try:
        return [int(name) for name in _names(text)]
    except ValueError as error:
        raise InputError(f"--seeds {text}: give whole numbers with commas between.") from error


def _check_options(options: dict[str, Any]) -> None:
    known = json.loads((CONFIGS / "train.json").read_text(encoding="utf-8"))
    for option in options:
        if option not in known:
            raise InputError(f"--{option}: neither an option of this script nor a key of {CONFIGS / 'train.json'}.")


def _configs(name: str, task: str, *more: str) -> list[str]:
    return [str(CONFIGS / config) for config in ("train.json", *TASKS[task][0], *ROWS[name][1], *more)]


def _bundle(key: str, configs: list[str], options: dict[str, Any]) -> None:
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", key, "--config_file", str(configs), *words]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise InputError(f"{options['output_dir']}: the run above failed; mend what it names and start again.")


def _train(name: str, task: str, dataset: str, output: Path, options: dict[str, Any]) -> None:
    paths = {"dataset_dir": Path(dataset).resolve(), "output_dir": output.resolve()}
    _bundle("training", _configs(name, task), {**paths, **ROWS[name][2], **options})


def _evaluate(
    name: str, task: str, dataset: str, output: Path, weights: Path, options: dict[str, Any]
) -> dict[str, float]:
    if not weights.is_file():
        raise InputError(f"{weights}: no such weights; leave --checkpoints out to train them.")
    record = output / "run.json"
    made = _read(record) if record.is_file() else {"weights_sha256": {}, "manifest_sha256": None}
    before = made["weights_sha256"].get("checkpoint"), made["manifest_sha256"]
    if before != (sha256_of(weights), manifest_hash(dataset)):
        paths = {
            "dataset_dir": Path(dataset).resolve(),
            "output_dir": output.resolve(),
            "checkpoint": weights.resolve(),
        }
        shared = {key: value for key, value in options.items() if key in SHARED}
        _bundle("evaluating", _configs(name, task, "evaluate.json"), {**paths, **ROWS[name][2], **shared})
    return _read(record)["metrics"]


def _figures(metrics: dict[str, float | None], columns: dict[str, str]) -> dict[str, float]:
    """The columns' figures in percent, without those of classes that the test tiles do not have."""
    absent = tuple(f"_{name}" for name in CLASSES if metrics.get(f"val_sensitivity_{name}", 0.0) is None)
    scores = {column: metrics.get(metric) for column, metric in columns.items()}
    return {c: 100 * score for c, score in scores.items() if score is not None and not c.endswith(absent)}


def _dataset(dataset: str) -> dict[str, str]:
    return {"dataset": Path(dataset).resolve().name, "manifest_sha256": manifest_hash(dataset)}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _speed(name: str, path: Path) -> dict[str, Any]:
    """Trainable parameters in millions, 512 x 512 tiles a second through the network, one at a time, and on what."""
    if not path.is_file():
        config = ConfigParser()
        config.read_config(_configs(name, "binary"))
        config.update({**ROWS[name][2], "encoder_weights": None})
        network, device = config.get_parsed_content("network"), config.get_parsed_content("device")
        parameters = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
        network.eval()
        tile = torch.zeros(1, 3, 512, 512, device=device).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            seconds = [_seconds(network, tile) for _ in range(13)][3:]
        hardware = (
            torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        )
        figures = {"tiles_per_second": 1 / statistics.median(seconds), "million_parameters": parameters / 1e6}
        write_json(path, {**figures, "seconds": seconds, "hardware": hardware})
    return _read(path)


def _seconds(network: torch.nn.Module, tile: torch.Tensor) -> float:
    started = time.perf_counter()
    network(tile)
    if tile.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started


if __name__ == "__main__":
    fire.Fire(reproduce)
