"""Workers in processes of their own on this machine."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from lightmuseg.errors import InputError

from .slide_worker import Task, work
from .supervisor import DIED, ENDED, STOP_S, News

# a fork would copy threads and a GPU's state half
_PROCESSES = multiprocessing.get_context("spawn")


class LocalWorkers:
    """:class:`.Workers` that are processes; a pool of the standard library is broken for good when one of them dies.

    Args:
        task: what is to be done.
        gpus: for each worker what is set as CUDA_VISIBLE_DEVICES; None to leave that as it is.
    """

    def __init__(self, task: Task, gpus: Sequence[str | None]) -> None:
        self.size = len(gpus)
        self._task, self._gpus = task, gpus
        self._running: dict[Connection, tuple[int, BaseProcess]] = {}

    def start(self, worker: int) -> None:
        ours, theirs = _PROCESSES.Pipe()
        arguments = (self._task, self._gpus[worker], theirs)
        process = _PROCESSES.Process(target=_run, args=arguments, name=f"cohort {worker}", daemon=True)
        # Ctrl-C goes to all processes of a terminal; this one ends the others
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        process.start()
        signal.signal(signal.SIGINT, before)
        # or this side would never see the end of it
        theirs.close()
        self._running[ours] = worker, process

    def news(self, timeout: float) -> list[tuple[int, News]]:
        found: list[tuple[int, News]] = []
        for connection in wait(list(self._running), timeout):
            worker, process = self._running[connection]
            try:
                news = connection.recv()
            except (EOFError, OSError):
                news = DIED
            if isinstance(news, Exception):
                raise news
            if news in (DIED, ENDED):
                _end(process, STOP_S)
                connection.close()
                del self._running[connection]
            found.append((worker, news))
        return found

    def stop(self) -> None:
        for connection in self._running:
            connection.close()
        until = time.monotonic() + STOP_S
        for _, process in self._running.values():
            _end(process, until - time.monotonic())


def _end(process: BaseProcess, patience_s: float) -> None:
    process.join(max(0.0, patience_s))
    # which counts as a death at the slide that it has
    process.kill()
    process.join()


def _run(task: Task, gpu: str | None, connection: Connection) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    signal.signal(signal.SIGINT, _interrupt_once)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    with suppress(KeyboardInterrupt, BrokenPipeError):
        try:
            for slide in work(task):
                connection.send(slide)
            connection.send(ENDED)
        except InputError as error:
            connection.send(InputError(*error.args))
        except Exception:
            # errors of every library do not cross between processes
            connection.send(RuntimeError(traceback.format_exc()))


def _interrupt_once(*_: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with(connection: Connection) -> None:
    """Interrupt this process when the other side of a connection is gone."""
    with suppress(EOFError, OSError):
        # nothing is ever sent
        connection.recv()
    _thread.interrupt_main()
