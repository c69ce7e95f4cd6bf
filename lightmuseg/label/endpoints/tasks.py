"""Trainings and scorings: started here, in processes of their own, and watched."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks
from starlette.responses import Response

from ..faults import without_folders
from ..fine_tuning import FineTuning
from ..request_checks import TrainingOptions, checked, known, options_of
from ..routes import ready
from .dependencies import ADMIN, ANNOTATOR, USER

# trainings that may wait for the one that runs
MOST_TRAININGS = 4

router = APIRouter(dependencies=[Depends(checked)])
_starting = threading.Lock()


@router.get("/train/", dependencies=[USER], tags=["Train"])
def trainings(all: bool = False, check_if_running: bool = False) -> Response:
    """The training that runs, else the last one; or all since the server started."""
    return _listed("train", all, check_if_running)


@router.get("/scoring/", dependencies=[USER], tags=["Scoring"])
def scorings(all: bool = False, check_if_running: bool = False) -> Response:
    """The scoring that runs, else the last one; or all since the server started."""
    return _listed("scoring", all, check_if_running)


@router.delete("/train/", dependencies=[ADMIN], tags=["Train"])
def stop_training() -> Response:
    """End the training that runs."""
    return ready(_copied(AsyncTask.stop("train")))


@router.delete("/scoring/", dependencies=[ANNOTATOR], tags=["Scoring"])
def stop_scoring() -> Response:
    """End the scoring that runs; none starts by itself before other weights come into use."""
    app_instance().pause_scoring()
    return ready(_copied(AsyncTask.stop("scoring")))


@router.post("/train/{model}", dependencies=[ADMIN], tags=["Train"])
def train(model: str, params: dict[str, Any] | None = None, enqueue: bool = False) -> Response:
    """Start a training, in a process of its own."""
    trainer = known(app_instance()._trainers, model, "model")
    options = options_of(params, trainer.config())
    if isinstance(trainer, FineTuning):
        TrainingOptions.of(options)
    with _starting:
        waiting = [task for task in tasks_of("train", all=True) if task["status"] == "SUBMITTED"]
        if len(waiting) >= MOST_TRAININGS:
            raise HTTPException(429, f"{len(waiting)} trainings wait already; stop one by DELETE /train/, or wait.")
        return _started("train", {"model": model}, options, enqueue)


@router.post("/scoring/{method}", dependencies=[ANNOTATOR], tags=["Scoring"])
def score(method: str, params: dict[str, Any] | None = None) -> Response:
    """Score what has no score by the weights in use, in a process of its own."""
    scoring = known(app_instance()._scoring_methods, method, "method")
    options = options_of(params, getattr(scoring, "config", dict)())
    app_instance().resume_scoring()
    return _started("scoring", {"method": method}, options)


def _started(kind: str, request: dict[str, Any], options: dict[str, Any], enqueue: bool = False) -> Response:
    task, refused = AsyncTask.run(kind, request=request, params=options, enqueue=enqueue)
    if task is None:
        raise HTTPException(429, refused.strip("+ "), headers={"Retry-After": "10"})
    return ready(_copied(task))


def _listed(kind: str, all: bool, running: bool) -> Response:
    found = tasks_of(kind, all, running)
    if not found:
        raise HTTPException(404, f"there is no {kind} task{' that runs' if running else ''}.")
    return ready(found if all and not running else found[0])


def tasks_of(kind: str, all: bool = False, running: bool = False) -> list[dict[str, Any]]:
    """The task of a kind that runs, else the last one; or all since the server started.

    Args:
        kind: "train" or "scoring".
        all: give all.
        running: give none but the one that runs, whatever else is wanted, as MONAI Label does.
    """
    started = [_copied(task) for task in list(tasks(kind))]
    current = [task for task in started if task["status"] == "RUNNING"][:1]
    if running:
        return current
    return started if all else current or started[-1:]


def _copied(task: dict[str, Any] | None) -> dict[str, Any] | None:
    """A task with its last lines as they are now, to which a thread adds others, without the server's folders."""
    return task and {**task, "details": [without_folders(line) for line in list(task.get("details", ()))]}
