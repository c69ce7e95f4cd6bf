"""Images, labels, what is known of them, and the choice of the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Depends, HTTPException, Request, UploadFile
from monailabel.endpoints import activelearning
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.utils.app import app_instance
from starlette.responses import Response

from .. import FINAL
from ..request_checks import FORM_BYTES, MAX_IMAGE_BYTES, MAX_LABEL_BYTES, checked, json_object, known, plain_object
from ..routes import ready
from .dependencies import ANNOTATOR, USER, FormText, kept

# Slides that are opened at once: each may take a gigabyte, and seconds.
MOST_SLIDES = 2

router = APIRouter(dependencies=[Depends(checked)])
_slides = anyio.CapacityLimiter(MOST_SLIDES)


async def _with_a_slide(work: Callable[[], Any]) -> Response:
    """The answer of work that opens a slide: a few at once, in threads that nobody else waits for."""
    return ready(await anyio.to_thread.run_sync(work, limiter=_slides))


@router.get("/datastore/", dependencies=[USER], tags=["Datastore"])
def datastore(output: Literal["train", "stats", "all"] = "stats") -> Response:
    """How many images and labels there are, or what is known of each."""
    store = app_instance().datastore()
    if output == "all":
        return Response(store.text(), media_type="application/json")
    return ready(store.datalist() if output == "train" else store.status())


@router.put("/datastore/image", max_body_size=MAX_IMAGE_BYTES + FORM_BYTES, tags=["Datastore"])
async def add_image(
    request: Request, file: UploadFile, image: str = "", params: FormText = "{}", user: User = ANNOTATOR
) -> Response:
    """Take in a slide or picture."""
    info = {**json_object(params, "params"), "user": user.username}
    name = image or Path(file.filename or "").stem

    def work() -> dict[str, Any]:
        with kept(file, request.app.state.folder) as path:
            return {"image": app_instance().datastore().add_image(name, str(path), info)}

    return await _with_a_slide(work)


@router.put("/datastore/label", max_body_size=MAX_LABEL_BYTES + FORM_BYTES, tags=["Datastore"])
async def save_label(
    request: Request, image: str, label: UploadFile, tag: str = FINAL, params: FormText = "{}", user: User = ANNOTATOR
) -> Response:
    """Save a label as the image's next version."""
    info = {**json_object(params, "params"), "user": user.username}

    def work() -> dict[str, Any]:
        app = app_instance()
        with kept(label, request.app.state.folder) as path:
            # which adds version, time and hash to what the client stated
            saved = app.datastore().save_label(image, str(path), tag or FINAL, info)
            return {**(app.on_save_label(image, saved) or {}), "info": info, "image": image, "label": saved}

    return await _with_a_slide(work)


@router.post("/activelearning/{strategy}", tags=["ActiveLearning"])
async def next_sample(strategy: str, params: dict[str, Any] | None = None, user: User = USER) -> Response:
    """The image and patch to annotate next."""
    known(app_instance()._strategies, strategy, "strategy")
    wanted = {"client_id": user.username, **plain_object(params or {}, "the request")}
    if "strategy" in wanted:
        raise HTTPException(400, "strategy: is given in the address.")
    return await _with_a_slide(lambda: activelearning.sample(strategy, wanted, user.username))
