"""What the label server answers itself: inference, the starting of trainings and scorings, logs and pages."""

from __future__ import annotations

import copy
import shutil
import subprocess
import uuid
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import fastapi_offline
from fastapi import APIRouter, Depends, FastAPI, File, Form, HTTPException, Request, UploadFile
from fastapi.openapi.docs import get_swagger_ui_html
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC
from monailabel.endpoints.wsi_infer import WSIInput
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from requests_toolbelt import MultipartEncoder
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from .asked import checked, inference_params, json_object, options_of
from .faults import told
from .fine_tuning import FineTuning
from .inference import remove
from .page import start_page, start_page_without_names
from .routes import FORM_BYTES, MAX_BODY_BYTES, MAX_IMAGE_BYTES, ready

USER, ANNOTATOR, ADMIN = (
    Depends(RBAC(role))
    for role in (
        settings.MONAI_LABEL_AUTH_ROLE_USER,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    )
)
# of a log that is asked for
MAX_LINES = 10_000
# trainings that may wait for the one that runs
MOST_TRAININGS = 4
START_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# the page of requests, whose script is FastAPI's own in the page and Swagger UI from our files
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_FILES = "/docs/files"

router = APIRouter(dependencies=[Depends(checked)])


def _known(kind: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in kind:
        raise HTTPException(404, f"{what} {name[:80]!r}: is not known; {', '.join(kind) or 'there is none'}.")
    return kind[name]


# inference


@router.post("/infer/wsi/{model}", dependencies=[USER], max_body_size=MAX_BODY_BYTES, tags=["Infer"])
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
    async with _Picture(request, image, file) as path:
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
    _known(app_instance()._infers, model, "model")
    asked = inference_params(json_object(params, "params"))
    async with _Picture(request, image, file) as path:
        wanted = {**asked, "model": model, "image": str(path), "output": "image"}
        answer = await request.app.state.inference("infer", wanted, request)
        return await run_in_threadpool(_answer, answer, output)


async def _outlines(request: Request, model: str, path: Path, wsi: WSIInput, output: str) -> Response:
    _known(app_instance()._infers, model, "model")
    asked = {**wsi.model_dump(exclude={"params"}), **inference_params(wsi.params or {})}
    wanted = {**asked, "model": model, "image": str(path), "output": output}
    answer = await request.app.state.inference("infer_wsi", wanted, request)
    return await run_in_threadpool(_answer, answer, "json" if output == "json" else "image")


def _path_of(image: str) -> Path:
    """The file of an image of the datastore, and of nothing else."""
    uri = app_instance().datastore().get_image_uri(image)
    if not uri or not Path(uri).is_file():
        raise HTTPException(404, f"image {image[:80]!r}: is not in the datastore.")
    return Path(uri)


class _Picture:
    """The picture of a request while it is answered: one of the datastore, or one that was sent."""

    def __init__(self, request: Request, image: str, file: UploadFile | None) -> None:
        if not image and file is None:
            raise HTTPException(400, "no picture: name an image of the datastore, or send a file.")
        self._folder: Path = request.app.state.folder
        self._image, self._file = image, file
        self._sent: Path | None = None

    async def __aenter__(self) -> Path:
        if self._file is None:
            return await run_in_threadpool(_path_of, self._image)
        self._sent = self._folder / f"{uuid.uuid4().hex}{Path(self._file.filename or '').suffix[:10]}"
        await run_in_threadpool(self._keep, self._file, self._sent)
        return self._sent

    @staticmethod
    def _keep(file: UploadFile, path: Path) -> None:
        with path.open("wb") as kept:
            shutil.copyfileobj(file.file, kept)

    async def __aexit__(self, *_: object) -> None:
        if self._sent is not None:
            self._sent.unlink(missing_ok=True)


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


# trainings and scorings


@router.get("/train/", dependencies=[USER], tags=["Train"])
def trainings(all: bool = False, check_if_running: bool = False) -> Response:
    """The last training, or all since the server started."""
    return ready(_tasks("train", all, check_if_running))


@router.get("/scoring/", dependencies=[USER], tags=["Scoring"])
def scorings(all: bool = False, check_if_running: bool = False) -> Response:
    """The last scoring, or all since the server started."""
    return ready(_tasks("scoring", all, check_if_running))


@router.post("/train/{model}", dependencies=[ADMIN], tags=["Train"])
def train(model: str, params: dict[str, Any] | None = None, enqueue: bool = False) -> Response:
    """Start a training, in a process of its own."""
    trainer = _known(app_instance()._trainers, model, "model")
    waiting = [task for task in _tasks("train", True, missing=[]) if task["status"] == "SUBMITTED"]
    if len(waiting) >= MOST_TRAININGS:
        raise HTTPException(429, f"{len(waiting)} trainings wait already; stop one by DELETE /train/, or wait.")
    options = options_of(params, trainer.config())
    if isinstance(trainer, FineTuning):
        with told(app_instance().studies):
            trainer.options(options)
    return _started("train", {"model": model}, options, enqueue)


@router.post("/scoring/{method}", dependencies=[ANNOTATOR], tags=["Scoring"])
def score(method: str, params: dict[str, Any] | None = None) -> Response:
    """Score what has no score by the weights in use, in a process of its own."""
    scoring = _known(app_instance()._scoring_methods, method, "method")
    return _started("scoring", {"method": method}, options_of(params, scoring.config()), False)


def _started(kind: str, request: dict[str, Any], options: dict[str, Any], enqueue: bool) -> Response:
    task, refused = AsyncTask.run(kind, request=request, params=options, enqueue=enqueue)
    if task is None:
        raise HTTPException(429, refused.strip("+ "), headers={"Retry-After": "10"})
    return ready(_copied(task))


def _tasks(kind: str, all: bool = False, running: bool = False, missing: Any = None) -> Any:
    """What MONAI Label says of its tasks of a kind; ``missing`` where there are none."""
    found, said = AsyncTask.status(kind, all, running)
    if found is None and missing is not None:
        return missing
    if found is None:
        raise HTTPException(404, said)
    return [_copied(task) for task in found] if all else _copied(found)


def _copied(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task with its last lines as they are now, to which a thread adds others."""
    return {**task, "details": list(copy.copy(task.get("details", ())))}


# logs


@router.get("/logs/", dependencies=[ADMIN], tags=["Others"])
def logs(lines: int = 300) -> Response:
    """The last lines of the server's log."""
    path = Path(settings.MONAI_LABEL_APP_DIR) / "logs" / "app.log"
    if not path.is_file():
        raise HTTPException(404, "there is no log yet.")
    with path.open(encoding="utf-8", errors="replace") as file:
        return PlainTextResponse("".join(deque(file, min(max(lines, 1), MAX_LINES))))


@router.get("/logs/gpu", dependencies=[ADMIN], tags=["Others"])
def gpus() -> Response:
    """What nvidia-smi says."""
    if shutil.which("nvidia-smi") is None:
        raise HTTPException(404, "there is no nvidia-smi on the server's computer.")
    done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20)
    return PlainTextResponse(done.stdout or done.stderr)


# pages


@router.get("/", include_in_schema=False)
def start(request: Request) -> Response:
    """The start page; names of slides are for users who have logged in, which a browser cannot."""
    address = str(request.base_url).rstrip("/")
    if settings.MONAI_LABEL_AUTH_ENABLE:
        page = start_page_without_names(address)
    else:
        app = app_instance()
        tasks = [_tasks(kind, missing={}) or None for kind in ("train", "scoring")]
        page = start_page(app.info(), app.datastore().json()["objects"], *tasks, address)
    return HTMLResponse(page, headers={"Content-Security-Policy": START_POLICY, "Cache-Control": "no-cache"})


@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """Every request, by Swagger UI from files that are installed here."""
    page = get_swagger_ui_html(
        openapi_url=request.app.openapi_url, title=f"{request.app.title} - requests",
        swagger_js_url=f"{DOCS_FILES}/swagger-ui-bundle.js", swagger_css_url=f"{DOCS_FILES}/swagger-ui.css",
        swagger_favicon_url="/favicon.ico",
    )  # fmt: skip
    page.headers["Content-Security-Policy"] = DOCS_POLICY
    return page


@router.get("/favicon.ico", include_in_schema=False)
def favicon() -> Response:
    """A small picture for the browser's tab."""
    return RedirectResponse(f"{DOCS_FILES}/favicon.png")


def add_own(app: FastAPI) -> None:
    """Give ``app`` all of these routes."""
    app.include_router(router)
    files = Path(fastapi_offline.__file__).parent / "static"
    app.mount(DOCS_FILES, StaticFiles(directory=files), name="docs")
