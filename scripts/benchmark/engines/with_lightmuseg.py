"""One slide by the bundle: SLIDE MODEL OUTPUT {"option": value}; the share of the network is measured around it."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from watch import watched

import lightmuseg.engine.pipeline as engine
from lightmuseg.slides.bundle_config import run_bundle

slide, model, output, options = sys.argv[1:]
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
busy = 0.0
logits_of = engine._logits


def timed(*arguments: Any) -> Any:
    """The network's logits, its time counted."""
    global busy
    started = time.perf_counter()
    result = logits_of(*arguments)
    busy += time.perf_counter() - started
    return result


engine._logits = timed
values = {"checkpoint": Path(model), **json.loads(options)}
with watched() as facts:
    run_bundle(Path(__file__).parents[3] / "bundle", None, [Path(slide)], Path(output), values)
folder = Path(output) / Path(slide).stem
record = json.loads((folder / "run.json").read_text())
facts_of_run = {"network s": busy, "tiles": record["tiles"], "stages s": record["seconds"], "model": record["model"]}
print(json.dumps({**facts, **facts_of_run, "map": str(folder / "classes.tif")}))
