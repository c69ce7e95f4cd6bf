"""Workers in processes of their own on this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from .slide_worker import READY, Report, SlideWorker, Task, guarded
from .work_list import CohortSlide

# a fork would copy threads and a GPU's state half
_PROCESSES = multiprocessing.get_context("spawn")


class Processes:
    """A :class:`.Pool` of processes.

    A pool of the standard library is broken for good when one of its processes dies, and does not say at what.

    Args:
        task: what is to be done.
        gpus: for each worker what is set as CUDA_VISIBLE_DEVICES; None to leave that as it is.
    """

    def __init__(self, task: Task, gpus: Sequence[str | None]) -> None:
        self.size = len(gpus)
        self._task, self._gpus = task, gpus
        self._workers: dict[int, tuple[BaseProcess, Connection]] = {}

    def start(self, worker: int, slide: CohortSlide | None) -> None:
        if worker not in self._workers:
            here, there = _PROCESSES.Pipe()
            words = (self._task, self._gpus[worker], there)
            process = _PROCESSES.Process(target=_work, args=words, name=f"cohort {worker}", daemon=True)
            # Ctrl-C goes to all processes of a terminal; this one ends the others
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            process.start()
            signal.signal(signal.SIGINT, before)
            # or this side would never see the end of it
            there.close()
            self._workers[worker] = process, here
            if slide is None:
                return
        # of a worker that has just died finished() tells
        try:
            self._workers[worker][1].send(slide)
        except OSError:
            return

    def finished(self, timeout: float) -> list[tuple[int, Report | None]]:
        ended: list[tuple[int, Report | None]] = []
        for connection in wait([connection for _, connection in self._workers.values()], timeout):
            worker = next(number for number, (_, one) in self._workers.items() if one is connection)
            try:
                ended.append((worker, self._workers[worker][1].recv()))
            except (EOFError, OSError):
                process, here = self._workers.pop(worker)
                here.close()
                process.join()
                ended.append((worker, None))
        return ended

    def close(self) -> None:
        # their state is made to be killed
        for process, connection in self._workers.values():
            process.kill()
            process.join()
            connection.close()
        self._workers.clear()


def _work(task: Task, gpu: str | None, connection: Connection) -> None:
    """Load the network and say so, then take slides until the other side is gone."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    worker: list[SlideWorker] = []

    def load() -> Report:
        worker.append(SlideWorker(task))
        return Report(READY)

    try:
        connection.send(guarded(load))
        while True:
            slide = connection.recv()
            connection.send(guarded(lambda slide=slide: worker[0](slide)))
    except (EOFError, OSError):
        return
