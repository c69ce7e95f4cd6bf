"""One slide by 'lightmuseg segment', without loading the libraries: SLIDE MODEL OUTPUT [OPTION ...]."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import monai.bundle  # noqa: F401
import torch
from watch import threads, watched

from lightmuseg.cli import main

slide, model, output, *options = sys.argv[1:]
torch.set_num_threads(threads())
bundle = Path(__file__).parents[3] / "bundle"
sys.argv[1:] = ["segment", slide, "--output", output, "--model", model, "--bundle", str(bundle), *options]
with watched() as facts:
    main()
folder = Path(output) / Path(slide).stem
record = json.loads((folder / "run.json").read_text())
runtime = " ".join(str(record["model"].get(name, "")) for name in ("runtime", "precision"))
facts |= {"tiles": record["tiles"], "stages s": record["seconds"], "runtime": runtime}
print(json.dumps({**facts, "map": str(folder / "classes.tif")}))
