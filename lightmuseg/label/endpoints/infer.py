"""Inference: what is asked is checked here, and done by the process that segments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, File, Form, HTTPException, Request, UploadFile
from fastapi.concurrency import contextmanager_in_threadpool
from monailabel.endpoints.wsi_infer import WSIInput
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from ..inference import remove
from ..requests import FORM_BYTES, MAX_IMAGE_BYTES, checked, inference_params, json_object, known, plain_object
from .roles import USER
from .uploads import kept

router = APIRouter(dependencies=[Depends(checked)])


@router.post("/infer/wsi/{model}", dependencies=[USER], tags=["Infer"])
async def infer_wsi(
    request: Request,
    model: str,
    image: str,
    wsi: WSIInput | None = None,
    output: Literal["asap", "dsa", "json"] = "json",
) -> Response:
    """Outlines in a rectangle of an image of the datastore, or of all its tissue."""
    return await _outlines(request, model, await run_in_threadpool(_path_of, image), wsi or WSIInput(), output)


@router.post("/infer/wsi_v2/{model}", dependencies=[USER], max_body_size=MAX_IMAGE_BYTES + FORM_BYTES, tags=["Infer"])
async def infer_wsi_v2(
    request: Request,
    model: str,
    image: str = "",
    file: Annotated[UploadFile | None, File()] = None,
    wsi: Annotated[str, Form()] = "{}",
    output: Literal["asap", "dsa", "json"] = "json",
) -> Response:
    """Outlines in an image of the datastore, or in one that is sent."""
    asked = WSIInput.model_validate(json_object(wsi, "wsi"))
    async with _picture(request, image, file) as path:
        return await _outlines(request, model, path, asked, output)


@router.post("/infer/{model}", dependencies=[USER], max_body_size=MAX_IMAGE_BYTES + FORM_BYTES, tags=["Infer"])
async def infer(
    request: Request,
    model: str,
    image: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: Literal["image", "json", "all"] = "all",
) -> Response:
    """A label image of an image of the datastore, or of one that is sent."""
    known(app_instance()._infers, model, "model")
    asked = inference_params(json_object(params, "params"))
    async with _picture(request, image, file) as path:
        wanted = {**asked, "model": model, "image": str(path), "output": "image"}
        answer = await request.app.state.inference("infer", wanted, request)
        return await run_in_threadpool(_answer, answer, output)


async def _outlines(request: Request, model: str, path: Path, wsi: WSIInput, output: str) -> Response:
    known(app_instance()._infers, model, "model")
    asked = {**wsi.model_dump(exclude={"params"}), **inference_params(plain_object(wsi.params or {}, "params"))}
    wanted = {**asked, "model": model, "image": str(path), "output": output}
    answer = await request.app.state.inference("infer_wsi", wanted, request)
    return await run_in_threadpool(_answer, answer, "json" if output == "json" else "image")


def _path_of(image: str) -> Path:
    """The file of an image of the datastore, and of nothing else."""
    uri = app_instance().datastore().get_image_uri(image)
    if not uri or not Path(uri).is_file():
        raise HTTPException(404, f"image {image[:80]!r}: is not in the datastore.")
    return Path(uri)


@asynccontextmanager
async def _picture(request: Request, image: str, file: UploadFile | None) -> AsyncIterator[Path]:
    """The picture of a request while it is answered: one of the datastore, or one that was sent."""
    if file is None and not image:
        raise HTTPException(400, "no picture: name an image of the datastore, or send a file.")
    if file is None:
        yield await run_in_threadpool(_path_of, image)
        return
    async with contextmanager_in_threadpool(kept(file, request.app.state.folder)) as path:
        yield path


def _answer(answer: Mapping[str, Any], output: str) -> Response:
    """Files as a response, which are removed when it has been sent."""
    done = BackgroundTask(remove, answer)
    if output == "json" or answer["file"] is None:
        return FileResponse(answer["params"], media_type="application/json", background=done)
    label = Path(answer["file"])
    if output == "image":
        return FileResponse(label, filename=label.name, background=done)
    fields = {
        "params": (None, Path(answer["params"]).read_text(encoding="utf-8"), "application/json"),
        "image": (label.name, label.read_bytes(), "application/octet-stream"),
    }
    form = MultipartEncoder(fields=fields)
    return Response(form.to_string(), media_type=form.content_type, background=done)
