"""Weights as they are released: half the size, in 16-bit floating point; loading makes them 32-bit again.

python scripts/release_weights.py bundle/output/reference/model.pt bundle/models/model.pt
"""

from __future__ import annotations

import io
from pathlib import Path

import fire
import torch

from lightmuseg.errors import InputError, report_faults_in_one_line
from lightmuseg.files import write_whole
from lightmuseg.networks.weights import read_state_dict
from lightmuseg.provenance import sha256_of


def release(source: str, target: str) -> None:
    """Write SOURCE, the model.pt of a training, to TARGET in half precision.

    Args:
        source: a state dict.
        target: a new file.
    """
    if Path(target).exists():
        raise InputError(f"{target}: is there already; move it away or choose another TARGET.")
    weights = read_state_dict(source)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in halves.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{source}: {name} has values that 16 bits cannot hold; release it as it is.")
    content = io.BytesIO()
    torch.save(halves, content)
    write_whole(target, lambda temporary: temporary.write_bytes(content.getbuffer()))
    print(f"{target}: {Path(target).stat().st_size / 1e6:.1f} MB, SHA-256 {sha256_of(target)}")


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(release)
