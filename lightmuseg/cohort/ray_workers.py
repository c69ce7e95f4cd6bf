"""Workers on a Ray cluster, or on this machine by Ray.

Only slides' names go out and a few words come back; pixels and results stay between the workers and the disk.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import secrets
import signal
import socket
import threading
import time
from contextlib import suppress
from types import ModuleType
from typing import Any

from lightmuseg.errors import InputError, first_line

from .slide_worker import Task, work
from .supervisor import DIED, ENDED, STOP_S, News

# nothing is kept in it, and Ray takes no less than 75 MiB
OBJECT_STORE_BYTES = 80 << 20
# seconds in which a cluster's first node must answer
ANSWER_S = 10


class RayWorkers:
    """:class:`.Workers` that are tasks of Ray.

    Args:
        task: what is to be done; its ``threads`` are left to this class.
        address: of a cluster; "" to start a node here, which listens on the loopback interface only and ends with this
            process.
        size: number of workers; None for one a GPU share, or on a cluster without GPUs one a node.
        gpus: share of a GPU that a worker gets; None for a whole one, or none where the cluster has none.

    Raises:
        InputError: where Ray is not installed, cannot be reached or started, or has too little for so many workers.
    """

    def __init__(self, task: Task, address: str, size: int | None, gpus: float | None) -> None:
        self._ray = _connected(address)
        try:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            share, self.size, cpus = shares(nodes, size, gpus)
        except InputError:
            self._ray.shutdown()
            raise
        options = {"num_cpus": cpus, "num_gpus": share, "max_retries": 0, "num_returns": "streaming"}
        self._work = self._ray.remote(work).options(**options)
        # kept once, however many workers there are
        self._task = self._ray.put(dataclasses.replace(task, threads=cpus))
        self._running: dict[Any, int] = {}

    def start(self, worker: int) -> None:
        self._running[self._work.remote(self._task)] = worker

    def news(self, timeout: float) -> list[tuple[int, News]]:
        ready, _ = self._ray.wait(list(self._running), timeout=timeout)
        return [(self._running[reports], self._next(reports)) for reports in ready]

    def _next(self, reports: Any) -> News:
        worker = self._running.pop(reports)
        try:
            news = self._ray.get(next(reports))
        except StopIteration:
            return ENDED
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise InputError(*error.cause.args) from None
            raise
        except self._ray.exceptions.RayError:
            # its process, its node or the way to it
            return DIED
        self._running[reports] = worker
        return news

    def stop(self) -> None:
        for reports in self._running:
            # which is a KeyboardInterrupt there
            self._ray.cancel(reports)
        until = time.monotonic() + STOP_S
        while self._running and time.monotonic() < until:
            with suppress(InputError, self._ray.exceptions.RayError):
                self.news(1.0)
        self._ray.shutdown()


def _connected(address: str) -> ModuleType:
    """Ray, joined to a cluster or started here."""
    # before Ray is imported: it reports to its makers unless told not to
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if not address:
        # Ray's switch of desktop systems, by which a node listens on the loopback interface only
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray: Ray is not installed; pip install 'lightmuseg[ray]'.") from error
    require_answer(address)
    own = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else own)
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        what = f"--address {address}: cannot be joined" if address else "--engine ray: Ray cannot be started"
        raise InputError(f"{what} ({first_line(error)}); see 'ray status', or use --engine local.") from error
    if threading.current_thread() is threading.main_thread():
        # Ray puts its own handler there, which ends the process without a word
        signal.signal(signal.SIGTERM, on_sigterm)
    return ray


def require_answer(address: str) -> None:
    """Refuse a HOST:PORT where nobody listens: Ray itself would try for a minute and then end the process."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--address {address}: cannot be joined ({first_line(error)}); give the address that 'ray start' printed."
        ) from error


def shares(nodes: list[dict[str, float]], size: int | None, gpus: float | None) -> tuple[float, int, int]:
    """GPUs a worker, number of workers, and cores a worker, as they fit into the nodes."""
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) for node in nodes) else 0.0

    def fits(cpus: int) -> int:
        # a worker's share is of one GPU
        return sum(
            int(min(node["CPU"] // cpus, node.get("GPU", 0) * int(1 / gpus + 1e-6) if gpus else math.inf))
            for node in nodes
        )

    most = fits(1)
    wanted = 1 if size is None else size
    if wanted > most:
        raise InputError(
            f"--slides-at-once {wanted}: the cluster has cores and GPUs for {most} workers of {gpus:g} GPUs; give "
            "fewer, or a smaller --gpus-per-worker."
        )
    if size is None:
        size = most if gpus else len(nodes)
    cpus = max(1, int(sum(node["CPU"] for node in nodes) / size))
    while fits(cpus) < size:
        cpus -= 1
    return gpus, size, cpus
