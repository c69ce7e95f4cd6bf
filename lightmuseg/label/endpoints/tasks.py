"""Trainings and scorings: started here, in processes of their own, and asked after."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from starlette.responses import Response

from ..asked import checked, known, options_of
from ..faults import told, without_folders
from ..fine_tuning import FineTuning
from ..routes import ready
from .roles import ADMIN, ANNOTATOR, USER

# trainings that may wait for the one that runs
MOST_TRAININGS = 4

router = APIRouter(dependencies=[Depends(checked)])
_starting = threading.Lock()


@router.get("/train/", dependencies=[USER], tags=["Train"])
def trainings(all: bool = False, check_if_running: bool = False) -> Response:
    """The last training, or all since the server started."""
    return ready(tasks_of("train", all, check_if_running))


@router.get("/scoring/", dependencies=[USER], tags=["Scoring"])
def scorings(all: bool = False, check_if_running: bool = False) -> Response:
    """The last scoring, or all since the server started."""
    return ready(tasks_of("scoring", all, check_if_running))


@router.delete("/train/", dependencies=[ADMIN], tags=["Train"])
def stop_training() -> Response:
    """End the training that runs."""
    return _stopped("train")


@router.delete("/scoring/", dependencies=[ANNOTATOR], tags=["Scoring"])
def stop_scoring() -> Response:
    """End the scoring that runs."""
    return _stopped("scoring")


@router.post("/train/{model}", dependencies=[ADMIN], tags=["Train"])
def train(model: str, params: dict[str, Any] | None = None, enqueue: bool = False) -> Response:
    """Start a training, in a process of its own."""
    trainer = known(app_instance()._trainers, model, "model")
    options = options_of(params, trainer.config())
    if isinstance(trainer, FineTuning):
        with told(app_instance().studies):
            trainer.options(options)
    with _starting:
        waiting = [task for task in tasks_of("train", True, missing=[]) if task["status"] == "SUBMITTED"]
        if len(waiting) >= MOST_TRAININGS:
            raise HTTPException(429, f"{len(waiting)} trainings wait already; stop one by DELETE /train/, or wait.")
        return _started("train", {"model": model}, options, enqueue)


@router.post("/scoring/{method}", dependencies=[ANNOTATOR], tags=["Scoring"])
def score(method: str, params: dict[str, Any] | None = None) -> Response:
    """Score what has no score by the weights in use, in a process of its own."""
    scoring = known(app_instance()._scoring_methods, method, "method")
    return _started("scoring", {"method": method}, options_of(params, getattr(scoring, "config", dict)()), False)


def _stopped(kind: str) -> Response:
    task = AsyncTask.stop(kind)
    return ready(_copied(task) if task else None)


def _started(kind: str, request: dict[str, Any], options: dict[str, Any], enqueue: bool) -> Response:
    task, refused = AsyncTask.run(kind, request=request, params=options, enqueue=enqueue)
    if task is None:
        raise HTTPException(429, refused.strip("+ "), headers={"Retry-After": "10"})
    return ready(_copied(task))


def tasks_of(kind: str, all: bool = False, running: bool = False, missing: Any = None) -> Any:
    """What MONAI Label says of its tasks of a kind; ``missing`` where there are none."""
    found, said = AsyncTask.status(kind, all, running)
    if found is None and missing is not None:
        return missing
    if found is None:
        raise HTTPException(404, said)
    # asked for what runs, it gives one, whatever else is asked for
    return [_copied(task) for task in found] if isinstance(found, list) else _copied(found)


def _copied(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task with its last lines as they are now, to which a thread adds others, without the server's folders."""
    return {**task, "details": [without_folders(line) for line in copy.copy(task.get("details", ()))]}
