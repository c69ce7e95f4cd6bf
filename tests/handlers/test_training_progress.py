import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch.utils.data import WeightedRandomSampler

from lightmuseg.handlers import Progress


class Shown(Progress):
    """A bar whose places are kept."""

    def __init__(self):
        super().__init__("tiles")
        self.places = []

    def _advance(self, engine):
        super()._advance(engine)
        self.places.append(self.bar.n)


def evaluator(tiles, sampler, progress):
    dataset = Dataset([{"image": torch.zeros(1, 2, 2)}] * tiles)
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=2, sampler=sampler),
        network=torch.nn.Identity(),
        val_handlers=[progress],
    )


@pytest.mark.parametrize(("tiles", "own", "places"), [(6, range(6), [2, 4, 6]), (11, range(0, 11, 2), [4, 7, 11])])
def test_bar_shows_the_tiles_of_all_processes_and_ends_full(tiles, own, places, capsys):
    progress = Shown()
    evaluator(tiles, list(own), progress).run()
    assert progress.places == places
    assert progress.bar.total == tiles
    assert f"{tiles}/{tiles}" in capsys.readouterr().err


def test_only_the_first_process_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(idist, "get_rank", lambda: 1)
    evaluator(6, None, Progress("tiles")).run()
    assert capsys.readouterr().err == ""


def test_tiles_that_a_sampler_draws_are_counted():
    items = [{"image": torch.zeros(1)} for _ in range(5)]
    loader = DataLoader(items, batch_size=2, sampler=WeightedRandomSampler([1.0] * 5, 8))
    progress, counted = Progress("training"), []
    engine = Engine(lambda engine, batch: {"loss": torch.zeros(())})
    engine.data_loader = loader
    progress.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: counted.append(progress.bar.n))
    engine.run(loader, max_epochs=2)
    assert counted == [2, 4, 6, 8, 10, 12, 14, 16]
    assert progress.bar.total == 16
