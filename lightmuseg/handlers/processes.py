"""Several processes that train or evaluate as one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, TypeVar

import ignite.distributed as idist
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events

from lightmuseg.errors import InputError, first_line, refuse_text_for_truth, report_faults_in_one_line, user_fault

Answer = TypeVar("Answer")


def by_first(make: Callable[[], Answer]) -> Answer:
    """What ``make()`` gives on the first process, on every process; the others do not call it.

    All must call this. Where ``make`` fails they all fail, so that none waits for one that has gone.

    Raises:
        InputError: on the other processes where it failed on the first, with the line that the first shows.
    """
    if idist.get_world_size() == 1:
        return make()
    error = None
    shared: list[Any] = [None, None]
    if idist.get_rank() == 0:
        try:
            shared[0] = make()
        except Exception as raised:  # whatever it is, the others must hear of it before it goes on its way
            error, shared[1] = raised, user_fault(raised) or first_line(raised)
    dist.broadcast_object_list(shared, src=0)
    if error is not None:
        raise error
    answer, fault = shared
    if fault is not None:
        raise InputError(fault)
    return answer


def report_faults_once() -> None:
    """Make the process that fails first say why, as :func:`.report_faults_in_one_line` does, and no other.

    The others fail by the same fault, or because the first is gone.
    """
    report_faults_in_one_line()
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if _is_first_to_fail():
            report(kind, error, trace)

    sys.excepthook = hook


def _is_first_to_fail() -> bool:
    """Whether no other process of this start has failed; the launcher's store, which outlives them, counts."""
    count = f"lightmuseg/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        return dist.TCPStore(*place, is_master=False, timeout=timedelta(seconds=10)).add(count, 1) == 1
    except dist.DistError:
        # rather reported twice than not at all
        return True


def synchronised(network: torch.nn.Module, wanted: bool, device: torch.device) -> torch.nn.Module:
    """The network, with batch-norm statistics over the tiles of all processes where ``wanted``.

    Its state dict has the same keys either way.

    Raises:
        InputError: where they are wanted on a CPU, for which PyTorch has no such layer.
    """
    refuse_text_for_truth({"sync_batch_norm": wanted})
    if not wanted:
        return network
    if device.type != "cuda":
        raise InputError(f"--sync_batch_norm {wanted}: works on GPUs only, and device is {device}; leave it out.")
    return torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)


@dataclass(eq=False)
class SharedBuffers:
    """Give a network the first process's buffers (batch-norm statistics) when an engine starts.

    ``DistributedDataParallel`` does so before each training step only, so that after an epoch's last step each process
    would validate a network of its own. Attach it to the evaluator.

    Args:
        network: whose buffers are shared.
    """

    network: torch.nn.Module

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine | None = None) -> None:
        if idist.get_world_size() > 1:
            for buffer in self.network.buffers():
                dist.broadcast(buffer, src=0)
