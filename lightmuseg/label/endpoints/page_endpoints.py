"""Pages for a browser, and logs."""

from __future__ import annotations

import shutil
import subprocess
from collections import deque
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from monailabel.config import settings
from monailabel.interfaces.utils.app import app_instance
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from ..request_checks import checked
from ..start_page import start_page, start_page_without_names
from .dependencies import ADMIN
from .tasks import tasks_of

# of the log, in one answer
MAX_LINES = 10_000
_NONE_BUT_OURS = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
START_POLICY = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {_NONE_BUT_OURS}"
# the page of requests, whose script is FastAPI's own in the page and Swagger UI from our files
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    f"connect-src 'self'; {_NONE_BUT_OURS}"
)
DOCS_FILES = "/docs/files"

router = APIRouter(dependencies=[Depends(checked)])


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
    """What nvidia-smi prints."""
    if shutil.which("nvidia-smi") is None:
        raise HTTPException(404, "there is no nvidia-smi on the server's computer.")
    done = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=20)
    return PlainTextResponse(done.stdout or done.stderr)


@router.get("/", include_in_schema=False)
def start(request: Request) -> Response:
    """The start page; names of slides are for users who have logged in, which a browser cannot."""
    address = str(request.base_url).rstrip("/")
    if settings.MONAI_LABEL_AUTH_ENABLE:
        page = start_page_without_names(address)
    else:
        app = app_instance()
        last = [next(iter(tasks_of(kind)), None) for kind in ("train", "scoring")]
        page = start_page(app.info(), app.datastore().json()["objects"], *last, address)
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
