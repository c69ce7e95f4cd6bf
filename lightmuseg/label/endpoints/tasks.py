"""Trainings and scorings: started here, in processes of their own, and asked after."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Depends, HTTPException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks
from starlette.responses import Response

from ..faults import told, without_folders
from ..fine_tuning import FineTuning
from ..requests import checked, known, options_of
from ..routes import ready
from .roles import ADMIN, ANNOTATOR, USER

# trainings that may wait for the one that runs
MOST_TRAININGS = 4

router = APIRouter(dependencies=[Depends(checked)])
_starting = threading.Lock()


@router.get("/train/", dependencies=[USER], tags=["Train"])
def trainings(all: bool = False, check_if_running: bool = False) -> Response:
    """The training that runs, else the last one; or all since the server started."""
    return ready(tasks_of("train", all, check_if_running))


@router.get("/scoring/", dependencies=[USER], tags=["Scoring"])
def scorings(all: bool = False, check_if_running: bool = False) -> Response:
    """The scoring that runs, else the last one; or all since the server started."""
    return ready(tasks_of("scoring", all, check_if_running))


@router.delete("/train/", dependencies=[ADMIN], tags=["Train"])
def stop_training() -> Response:
    """End the training that runs."""
    return _stopped("train")


@router.delete("/scoring/", dependencies=[ANNOTATOR], tags=["Scoring"])
def stop_scoring() -> Response:
    """End the scoring that runs; none begins by itself before other weights come into use."""
    app_instance().pause_scoring()
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
    app_instance().resume_scoring()
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
    """The task of a kind that runs, else the last one; or all since the server started.

    Args:
        kind: "train" or "scoring".
        all: give all.
        running: give none but the one that runs.
        missing: what is given where there are none; without it that is answered by 404.
    """
    begun = [_copied(task) for task in list(tasks(kind))]
    at_work = [task for task in begun if task["status"] == "RUNNING"]
    # asked for what runs, MONAI Label gives one, whatever else is asked for
    found = at_work[:1] if running else begun if all else at_work[:1] or begun[-1:]
    if not found and missing is None:
        raise HTTPException(404, f"there is no {kind} task{' that runs' if running else ''}.")
    if not found:
        return missing
    return found if all and not running else found[0]


def _copied(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task with its last lines as they are now, to which a thread adds others, without the server's folders."""
    return {**task, "details": [without_folders(line) for line in copy.copy(task.get("details", ()))]}
