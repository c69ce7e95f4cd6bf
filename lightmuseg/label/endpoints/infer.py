"""Inference: requests are checked here, and answered by the process that segments."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, UploadFile
from fastapi.concurrency import contextmanager_in_threadpool
from monailabel.endpoints.wsi_infer import WSIInput
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response

from ..inference import remove
from ..request_checks import FORM_BYTES, MAX_IMAGE_BYTES, checked, inference_params, json_object, known, plain_object
from .dependencies import USER, FormText, kept

Outlines = Literal["asap", "dsa", "json"]

router = APIRouter(prefix="/infer", dependencies=[Depends(checked), USER], tags=["Infer"])


@router.post("/wsi/{model}")
async def infer_wsi(
    request: Request, model: str, image: str, wsi: WSIInput | None = None, output: Outlines = "json"
) -> Response:
    """Outlines in a rectangle of an image of the datastore, or of all its tissue."""
    return await _outlines(request, model, image, None, wsi or WSIInput(), output)


@router.post("/wsi_v2/{model}", max_body_size=MAX_IMAGE_BYTES + FORM_BYTES)
async def infer_wsi_v2(
    request: Request, model: str, image: str = "", file: UploadFile | None = None, wsi: FormText = "{}",
    output: Outlines = "json",
) -> Response:  # fmt: skip
    """Outlines in an image of the datastore, or in one that is sent."""
    return await _outlines(request, model, image, file, WSIInput.model_validate(json_object(wsi, "wsi")), output)


@router.post("/{model}", max_body_size=MAX_IMAGE_BYTES + FORM_BYTES)
async def infer(
    request: Request, model: str, image: str = "", params: FormText = "{}", file: UploadFile | None = None,
    output: Literal["image", "json", "all"] = "all",
) -> Response:  # fmt: skip
    """A label image of an image of the datastore, or of one that is sent."""
    wanted = inference_params(json_object(params, "params"))
    return await _answer(request, model, image, file, {**wanted, "output": "image"}, output)


async def _outlines(
    request: Request, model: str, image: str, file: UploadFile | None, wsi: WSIInput, output: str
) -> Response:
    params = inference_params(plain_object(wsi.params or {}, "params"))
    wanted = {**wsi.model_dump(exclude={"params"}), **params, "output": output}
    return await _answer(request, model, image, file, wanted, "json" if output == "json" else "image")


async def _answer(
    request: Request, model: str, image: str, file: UploadFile | None, wanted: dict[str, Any], part: str
) -> Response:
    """Have an image segmented; ``part`` of what comes is answered: image, json or all."""
    known(app_instance()._infers, model, "model")
    method = "infer" if wanted["output"] == "image" else "infer_wsi"
    async with _picture(request, image, file) as path:
        answer = await request.app.state.inference(method, {**wanted, "model": model, "image": str(path)}, request)
        return await run_in_threadpool(_response, answer, part)


@asynccontextmanager
async def _picture(request: Request, image: str, file: UploadFile | None) -> AsyncIterator[Path]:
    """The picture of a request while it is answered: one of the datastore, or one that was sent."""
    if file is not None:
        async with contextmanager_in_threadpool(kept(file, request.app.state.folder)) as path:
            yield path
        return
    if not image:
        raise HTTPException(400, "no picture: name an image of the datastore, or send a file.")
    path = await run_in_threadpool(app_instance().datastore().get_image_uri, image)
    if not Path(path).is_file():
        raise HTTPException(404, f"image {image[:80]!r}: is not in the datastore.")
    yield Path(path)


def _response(answer: Mapping[str, Any], part: str) -> Response:
    """Files as a response, which are removed when it has been sent."""
    done = BackgroundTask(remove, answer)
    if part == "json" or answer["file"] is None:
        return FileResponse(answer["params"], media_type="application/json", background=done)
    label = Path(answer["file"])
    if part == "image":
        return FileResponse(label, filename=label.name, background=done)
    fields = {
        "params": (None, Path(answer["params"]).read_text(encoding="utf-8"), "application/json"),
        "image": (label.name, label.read_bytes(), "application/octet-stream"),
    }
    form = MultipartEncoder(fields=fields)
    return Response(form.to_string(), media_type=form.content_type, background=done)
