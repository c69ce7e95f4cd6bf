"""A record of a run beside its results."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from lightmuseg.data.tile_manifest import MANIFEST
from lightmuseg.provenance import environment, sha256_of
from lightmuseg.text_files import write_json


@dataclass(eq=False)
class RunRecord:
    """Write ``run.json``: versions, machine, command, options, hashes of weights and data, times and metrics.

    Of several processes the first writes it. A finished training that is started again keeps its record.

    Args:
        output_dir: folder of the record.
        options: plain values to record.
        device: the run's device.
        dataset_dir: its manifest's hash is recorded, where it has one.
        weights: files whose hashes are recorded when the run has ended, by name; None for one that was not given.
        network: says what its encoder started from.
        evaluator: whose metrics are recorded; None for the engine's own.
    """

    output_dir: str | Path
    options: dict[str, Any]
    device: torch.device
    dataset_dir: str | Path
    weights: dict[str, str | Path | None]
    network: torch.nn.Module
    evaluator: Engine | None = None
    _started: float = field(default=0.0, init=False)
    _worked: bool = field(default=False, init=False)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._note_work)
            engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, engine: Engine) -> None:
        self._started = time.time()

    def _note_work(self, engine: Engine) -> None:
        self._worked = True

    def _write(self, engine: Engine) -> None:
        if not self._worked:
            return
        metrics = (self.evaluator or engine).state.metrics
        manifest = Path(self.dataset_dir) / MANIFEST
        weights = {name: Path(path) for name, path in self.weights.items() if path is not None}
        write_json(
            Path(self.output_dir) / "run.json",
            {
                **environment(),
                "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU",
                "processes": idist.get_world_size(),
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(self._started)),
                "seconds": round(time.time() - self._started, 1),
                "epochs": engine.state.epoch,
                "options": self.options,
                "encoder_weights": getattr(getattr(self.network, "encoder", None), "weights_source", None),
                "manifest_sha256": sha256_of(manifest) if manifest.is_file() else None,
                "weights_sha256": {name: sha256_of(path) for name, path in weights.items() if path.is_file()},
                # JSON has no NaN, which is the score of a class that is nowhere
                "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
            },
        )
