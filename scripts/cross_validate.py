"""Train variants of the recipe, each time without one patient, and list the weights for evaluate_reference.py.

python scripts/cross_validate.py STUDY DATA OUTPUT [--only NAME] [--known docs/benchmarks/reference.json] [--at_once 2]

STUDY is JSON: {"set": {...}, "folds": ["TCGA-A2-A1G6"], "seeds": [1, 2], "mpp": 0.5, "variants": [{"name": "V3",
"group": "Variants", "configs": ["v3.json"], "set": {"max_epochs": 5}}]}. A variant may have its own folds, seeds and
mpp, a role and measures for evaluate_reference.py, and "unseen", patients to be judged by instead of the fold.
"configs" are read between train.json and reference.json; "set" are overrides of the training, in which DATA stands for
the folder of data. Each seed of each fold is one training by the bundle's own command, in bfloat16 on one core, on a
dataset that make_reference_data.py wrote without that patient.
Trainings with the same settings are made once, also those of several studies with one OUTPUT, and one that was
interrupted goes on. OUTPUT/STUDY_rows.json lists what is there, with the patients whom it never saw. Where a study
takes longer than a machine is at hand, --known names the figures of evaluate_reference.py: their trainings are listed
and not made again, if the values are the same that settings and configs give.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
from tqdm import tqdm

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.text_files import read_json, write_json, write_text

BUNDLE = Path(__file__).resolve().parents[1] / "bundle"
ENCODER = "DATA/weights/mobilenet_v2-coral.pth"
SHARED = ("folds", "seeds", "mpp")


@functools.cache
def read_config(name: str) -> dict[str, Any]:
    return read_json(BUNDLE / "configs" / name, "restore it")


@dataclass(frozen=True)
class Training:
    """One seed of a variant, without one patient."""

    variant: dict[str, Any]
    fold: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """What the training is asked for."""
        configs = ["train.json", *self.variant.get("configs", []), "reference.json"]
        overrides = {"encoder_weights": ENCODER, **self.variant["set"], "seed": self.seed, "amp": True}
        return {"configs": configs, "mpp": self.variant["mpp"], "fold": self.fold, "set": overrides}

    @property
    def name(self) -> str:
        """A digest of what the training does: of the values of the configs where no setting replaces them."""
        settings = self.settings
        values = dict(item for name in settings["configs"] for item in read_config(name).items()) | settings["set"]
        whole = json.dumps({"mpp": settings["mpp"], "fold": settings["fold"], "values": values}, sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:12]

    @property
    def unseen(self) -> list[str]:
        """The patients by whom it is judged."""
        return self.variant.get("unseen", [self.fold])

    def row(self, output: Path) -> dict[str, Any]:
        """The line of STUDY_rows.json."""
        about = {key: self.variant[key] for key in ("name", "group", "role", "measures") if key in self.variant}
        weights = {"seed": self.seed, "training": self.name, "model": str(output / self.name / "model.pt")}
        return {**about, **weights, "unseen": self.unseen}


def trainings_of(study: dict[str, Any], only: str = "") -> Iterator[Training]:
    """Seed by seed, so that what is done half-way compares all variants."""
    for variant in study["variants"]:
        if only in ("", variant["name"]):
            variant = {**{key: study[key] for key in SHARED if key in study}, **variant}
            variant["set"] = {**study.get("set", {}), **variant.get("set", {})}
            yield from (Training(variant, fold, seed) for seed in variant["seeds"] for fold in variant["folds"])


def is_done(training: Training, output: Path) -> bool:
    return (output / training.name / "done").is_file()


def train(training: Training, data: Path, output: Path) -> None:
    """Train; what the training says goes into a file beside the weights."""
    folder = output / training.name
    write_json(folder / "settings.json", training.settings)
    configs = [str(BUNDLE / "configs" / name) for name in training.settings["configs"]]
    words = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "training", "--config_file", repr(configs)]
    words += ["--dataset_dir", str(dataset_of(training, output)), "--output_dir", str(folder)]
    for key, value in training.settings["set"].items():
        words += [f"--{key}", str(value).replace("DATA", str(data))]
    with open(folder / "said.txt", "a") as said:
        environ = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(words, cwd=BUNDLE.parent, env=environ, stdout=said, stderr=said).returncode
    if not code:
        (folder / "done").touch()


def dataset_of(training: Training, output: Path) -> Path:
    return output / "datasets" / f"{training.fold}-{training.settings['mpp']:g}"


def cross_validate(study: str, data: str, output: str, only: str = "", known: str = "", at_once: int = 2) -> None:
    """Train all that the study names.

    Args:
        study: JSON file.
        data: folder of pictures, slides and weights.
        output: folder of datasets and weights.
        only: the variant of this name alone.
        known: figures whose trainings are not made again.
        at_once: trainings at a time.
    """
    from make_reference_data import make

    target, source = Path(output).resolve(), Path(data).resolve()
    described = read_json(study, "write it as scripts/cross_validate.py says")
    chosen = list(trainings_of(described, only))
    if not chosen:
        raise InputError(f"{study}: has no variant {only or 'at all'}.")
    figures = read_json(known, "name figures of evaluate_reference.py")["rows"] if known else []
    measured = {(row["training"], *row["patients"]) for row in figures if "training" in row}

    def is_there(training: Training) -> bool:
        return (training.name, *training.unseen) in measured or is_done(training, target)

    left = list({training.name: training for training in chosen if not is_there(training)}.values())
    for training in {dataset_of(one, target): one for one in left}.values():
        make(str(source), str(dataset_of(training, target)), training.settings["mpp"], training.fold)
    with ThreadPoolExecutor(at_once) as pool, tqdm(total=len(left), desc="training", unit="model") as bar:
        for future in as_completed([pool.submit(train, training, source, target) for training in left]):
            future.result()
            bar.update()
    rows = [training.row(target) for training in trainings_of(described) if is_there(training)]
    write_text(target / f"{Path(study).stem}_rows.json", "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    failed = [target / training.name / "said.txt" for training in left if not is_done(training, target)]
    if failed:
        raise InputError(f"{failed[0]}: {len(failed)} of {len(left)} trainings failed; read here why the first did.")


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(cross_validate)
