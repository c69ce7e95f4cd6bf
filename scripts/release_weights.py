"""Models as they are released: half the size, in 16-bit floating point, with a card that says what they learned from.

python scripts/release_weights.py bundle/output/reference/model.pt bundle/models/model.pt --name tumor \
    --dataset "BCSS (one region)" --licence Apache-2.0 --figures "tumor Dice of TCGA-S3-AA10=0.745" \
    --limits "Two patients' tumors: expect to train."
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fire
import torch
from fire.decorators import SetParseFn

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.models.card import save_model
from lightmuseg.models.model import Model
from lightmuseg.provenance import sha256_of


def release(
    source: str, target: str, name: str = "", dataset: str = "", licence: str = "", figures: str = "", limits: str = ""
) -> None:
    """Write SOURCE, the model.pt of a training, to TARGET in half precision; loading makes it 32-bit again.

    Args:
        source: a model.
        target: a new file.
        name: that users call it by.
        dataset: what it learned from.
        licence: of the weights.
        figures: its test figures, name=value with commas between; those of the training are left behind, as they say
            how far it fits what it was chosen by.
        limits: what it has not learned and where not to trust it; 'lightmuseg models' and reports show it.
    """
    if Path(target).exists():
        raise InputError(f"{target}: is there already; move it away or choose another TARGET.")
    model = Model.open(source)
    halves = {key: value.half() if value.is_floating_point() else value for key, value in model.weights.items()}
    for key, value in halves.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{source}: {key} has values that 16 bits cannot hold; release it as it is.")
    measured = {key: float(value) for key, value in (pair.split("=") for pair in figures.split(",") if pair)}
    about = {"name": name, "dataset": dataset, "licence": licence, "limits": limits}
    given = {key: value for key, value in about.items() if value}
    save_model(target, halves, dataclasses.replace(model.card, figures=measured, **given))
    print(f"{target}: {Path(target).stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_of(target)}")


if __name__ == "__main__":
    report_faults_in_one_line()
    # Fire would make numbers and tuples of words with commas between
    fire.Fire(SetParseFn(str)(release))
