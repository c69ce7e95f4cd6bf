"""Workers on a Ray cluster, or on this machine by Ray.

Only slides' names go out and a few words come back; pixels and results stay between the workers and the disk.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import socket
from types import ModuleType
from typing import Any

from lightmuseg.errors import InputError, first_line

from .slide_worker import READY, Report, SlideWorker, Task, guarded
from .work_list import CohortSlide

# nothing is kept in it, and Ray takes no less than 75 MiB
OBJECT_STORE_BYTES = 80 << 20
# seconds in which a cluster's first node must answer
ANSWER_S = 10


class RayWorkers:
    """A :class:`.Pool` of Ray actors.

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
            self._gpus, self.size, cpus = shares(nodes, size, gpus)
        except InputError:
            self._ray.shutdown()
            raise
        self._task = Task(**{**vars(task), "threads": cpus})
        self._cpus = cpus
        self._workers: dict[int, Any] = {}
        self._running: dict[Any, int] = {}

    def start(self, worker: int, slide: CohortSlide | None) -> None:
        if worker not in self._workers:
            # Ray's own restarts refuse calls for a while; a new actor takes them when it is there
            actor = self._ray.remote(Actor).options(num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0)
            self._workers[worker] = actor.remote(self._task)
        actor = self._workers[worker]
        self._running[actor.load.remote() if slide is None else actor.segment.remote(slide)] = worker

    def finished(self, timeout: float) -> list[tuple[int, Report | None]]:
        ended, _ = self._ray.wait(list(self._running), timeout=timeout)
        return [self._report(self._running.pop(call), call) for call in ended]

    def _report(self, worker: int, call: Any) -> tuple[int, Report | None]:
        try:
            return worker, Report(**self._ray.get(call))
        except self._ray.exceptions.RayTaskError:
            raise
        except self._ray.exceptions.RayError:
            # its process, its node or the way to it
            self._ray.kill(self._workers.pop(worker))
            return worker, None

    def close(self) -> None:
        for actor in self._workers.values():
            self._ray.kill(actor)
        self._workers.clear()
        self._ray.shutdown()


class Actor:
    """A worker on the other side."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._worker: SlideWorker | None = None

    def load(self) -> dict[str, str]:
        """Load the network."""
        return vars(guarded(self._load))

    def segment(self, slide: CohortSlide) -> dict[str, str]:
        """Segment a slide; the network is loaded before."""
        assert self._worker is not None
        worker = self._worker
        return vars(guarded(lambda: worker(slide)))

    def _load(self) -> Report:
        self._worker = SlideWorker(self._task)
        return Report(READY)


def _connected(address: str) -> ModuleType:
    """Ray, joined to a cluster or begun here."""
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
    try:
        ray.init(
            address or "local", logging_level=logging.ERROR, log_to_driver=False, **({} if address else own)
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError) as error:
        what = f"--address {address}: cannot be joined" if address else "--engine ray: Ray cannot be started"
        raise InputError(f"{what} ({first_line(error)}); see 'ray status', or use --engine local.") from error
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
