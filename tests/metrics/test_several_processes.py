"""The metrics in Ignite engines, of one process and of two."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import IgniteMetricHandler, from_engine

from lightmuseg.metrics import EnhancedAlignmentMeasure, MeanAbsoluteError, StructureMeasure, WeightedFMeasure

METRICS = {
    StructureMeasure: {"alpha": 0.3},
    EnhancedAlignmentMeasure: {},
    WeightedFMeasure: {"beta2": 0.3},
    MeanAbsoluteError: {},
}
# images a batch, of each process
BATCHES = {0: [2, 3], 1: [1]}


def images():
    """Six images of two channels with ignored pixels; nothing of the third is annotated."""
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(6, 2, 20, 24, generator=generator)
    mask = (torch.rand(6, 2, 20, 24, generator=generator) < 0.3).float()
    mask[..., :3] = 7
    mask[2] = 7
    return probability, mask


def evaluate(batches, first=0):
    """Metrics and details of an engine that sees the images from ``first`` on in such batches."""
    probability, mask = images()
    data = []
    for size in batches:
        data.append((probability[first : first + size], mask[first : first + size]))
        first += size
    engine = Engine(lambda engine, batch: [{"pred": p, "label": m} for p, m in zip(*batch)])
    for metric, arguments in METRICS.items():
        transform = from_engine(["pred", "label"])
        handler = IgniteMetricHandler(metric(ignore_index=7, **arguments), output_transform=transform)
        handler.attach(engine, metric.__name__)
    engine.run(data, epoch_length=len(data))
    details = {name: values.tolist() for name, values in engine.state.metric_details.items()}
    return {"metrics": engine.state.metrics, "details": details}


@pytest.mark.parametrize("metric", METRICS)
def test_value_in_an_engine_is_that_of_the_images_together(metric):
    direct = metric(ignore_index=7, **METRICS[metric])
    direct(*images())
    result = evaluate([4, 2])
    assert result["metrics"][metric.__name__] == pytest.approx(direct.aggregate().item(), abs=1e-6)
    details = torch.tensor(result["details"][metric.__name__])
    torch.testing.assert_close(details, direct.aggregate("none"), equal_nan=True)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, root, preloaded):
    """What each of two processes reports, of five images and of one."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in BATCHES:
        group = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment = {**os.environ, "PYTHONPATH": str(root), **{name: str(value) for name, value in group.items()}}
        command = [preloaded.executable, __file__, str(folder / f"{rank}.json")]
        processes.append(subprocess.Popen(command, env=environment))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in BATCHES]


@pytest.mark.parametrize("metric", [metric.__name__ for metric in METRICS])
def test_two_processes_equal_one(two_processes, metric):
    one = evaluate([6])
    for result in two_processes:
        assert result["metrics"][metric] == pytest.approx(one["metrics"][metric], abs=1e-6)
        details = torch.tensor(result["details"][metric])
        torch.testing.assert_close(details, torch.tensor(one["details"][metric]), equal_nan=True)


if __name__ == "__main__":
    import ignite.distributed as idist

    idist.initialize("gloo")
    rank = idist.get_rank()
    seen = evaluate(BATCHES[rank], first=sum(BATCHES[0]) * rank)
    with open(sys.argv[1], "w") as file:
        json.dump(seen, file)
    idist.finalize()
