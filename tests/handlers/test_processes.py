"""What several processes share; two of them, by gloo on the CPU, run one script."""

import json

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine

from lightmuseg.errors import InputError
from lightmuseg.handlers import EpochSeed, SharedBuffers, synchronised
from lightmuseg.handlers.processes import by_first

SCRIPT = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from lightmuseg.handlers import SharedBuffers, report_faults_once
from lightmuseg.handlers.processes import by_first

dist.init_process_group("gloo")
rank = dist.get_rank()
called, said = [], {}

def make():
    called.append(rank)
    return {"epoch": 3, "weights": torch.arange(4.0)}

state = by_first(make)
said["state"] = [state["epoch"], state["weights"].tolist()]
said["called"] = called
for name, fault in {"disk": OSError(28, "No space left on device", "last.pt"), "bug": KeyError("epoch")}.items():
    def fail():
        raise fault
    try:
        by_first(fail)
    except Exception as error:
        said[name] = [type(error).__name__, str(error)]

network = torch.nn.BatchNorm2d(2)
network.running_mean += rank + 1
network.num_batches_tracked += 10 * rank
SharedBuffers(network)()
said["buffers"] = [network.running_mean.tolist(), int(network.num_batches_tracked)]
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(said))

report_faults_once()
dist.barrier()
raise RuntimeError("told by one of two")
"""


@pytest.fixture(scope="module")
def both(run, tmp_path_factory):
    """What each of two processes says, and their stderr."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = ("python", "-m", "torch.distributed.run", "--nproc_per_node", 2, folder / "script.py", folder)
    status, _, stderr = run(*command, timeout=120)
    assert status != 0
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)], stderr


def test_all_get_what_the_first_made(both):
    said, _ = both
    assert [each["state"] for each in said] == [[3, [0, 1, 2, 3]]] * 2
    assert [each["called"] for each in said] == [[0], []]


def test_all_fail_where_the_first_fails(both):
    first, second = both[0]
    assert first["disk"] == ["OSError", "[Errno 28] No space left on device: 'last.pt'"]
    assert second["disk"] == ["InputError", "No space left on device: last.pt"]
    assert first["bug"] == ["KeyError", "'epoch'"]
    assert second["bug"] == ["InputError", "'epoch'"]


def test_all_have_the_buffers_of_the_first(both):
    assert [each["buffers"] for each in both[0]] == [[[1, 1], 0]] * 2


def test_a_fault_of_all_is_told_once(both):
    assert both[1].count("RuntimeError: told by one of two") == 1


def test_one_process_calls_and_shares_nothing():
    assert by_first(lambda: 7) == 7
    with pytest.raises(KeyError):
        by_first(lambda: {}["epoch"])
    network = torch.nn.BatchNorm2d(2)
    network.running_mean += 1
    SharedBuffers(network)()
    assert network.running_mean.tolist() == [1, 1]


def test_batch_norm_is_synchronised_on_gpus_alone():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
    names = list(network.state_dict())
    assert synchronised(network, False, torch.device("cpu")) is network
    with pytest.raises(InputError, match="sync_batch_norm True: works on GPUs only"):
        synchronised(network, True, torch.device("cpu"))
    with pytest.raises(InputError, match="write False"):
        synchronised(network, "false", torch.device("cuda", 0))
    converted = synchronised(network, True, torch.device("cuda", 0))
    assert isinstance(converted[1], torch.nn.SyncBatchNorm)
    assert list(converted.state_dict()) == names


def test_processes_have_random_numbers_of_their_own_and_the_first_those_of_one(monkeypatch):
    engine = Engine(lambda engine, batch: None)
    engine.data_loader = None
    draws = {}
    for rank in (0, 1, 2):
        monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
        for epoch in (1, 2):
            engine.state.epoch = epoch
            EpochSeed(42, [])(engine)
            draws[rank, epoch] = torch.rand(1).item()
    assert len(set(draws.values())) == len(draws)
    assert draws[0, 1] == torch.rand(1, generator=torch.Generator().manual_seed(43)).item()
