"""A progress bar over a whole run."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch.utils.data import WeightedRandomSampler
from tqdm import tqdm

from .checkpoint import loss_of


@dataclass(eq=False)
class Progress:
    """Show tiles done, tiles/s and the time left of a whole run, and a line for each epoch.

    Of several processes the first shows the tiles of all.

    Args:
        title: in front of the bar.
        evaluator: whose metrics stand in the epochs' lines; None for the engine's own.
    """

    title: str
    evaluator: Engine | None = None
    bar: tqdm = field(default_factory=lambda: tqdm(disable=True), init=False)

    def attach(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            engine.add_event_handler(Events.STARTED, self._start)
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)
            engine.add_event_handler(Events.COMPLETED, lambda: self.bar.close())
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        tiles = _tiles_of_epoch(engine)
        self.bar = tqdm(
            desc=self.title,
            total=tiles * engine.state.max_epochs,
            initial=tiles * min(engine.state.epoch, engine.state.max_epochs),
            unit="tile",
            mininterval=0.2 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
        )

    def _advance(self, engine: Engine) -> None:
        loss = loss_of(engine.state.output)
        if loss is not None:
            self.bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        # of its own batches alone a process does not know how many tiles the others did
        done = round(_tiles_of_epoch(engine) * engine.state.iteration / engine.state.epoch_length)
        self.bar.update(done - self.bar.n)

    def _report(self, engine: Engine) -> None:
        metrics = (self.evaluator or engine).state.metrics
        if metrics:
            values = "  ".join(f"{name} {float(value):.4f}" for name, value in metrics.items())
            epoch = f"epoch {engine.state.epoch} of {engine.state.max_epochs}  " if engine.state.max_epochs > 1 else ""
            tqdm.write(f"{self.title}: {epoch}{values}", file=sys.stderr)

    def _fail(self, engine: Engine, error: BaseException) -> None:
        self.bar.close()
        raise error


def _tiles_of_epoch(engine: Engine) -> int:
    loader = engine.data_loader
    drawn = getattr(loader.batch_sampler, "sampler", None)
    return len(drawn if isinstance(drawn, WeightedRandomSampler) else loader.dataset)
