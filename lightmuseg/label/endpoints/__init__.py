"""What the label server answers itself, in MONAI Label's stead."""

from __future__ import annotations

from pathlib import Path

import fastapi_offline
from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from . import image_endpoints, infer, page_endpoints, tasks


def add_own(app: FastAPI) -> None:
    """Give ``app`` all of these routes."""
    for module in (infer, image_endpoints, tasks, page_endpoints):
        app.include_router(module.router)
    files = Path(fastapi_offline.__file__).parent / "static"
    app.mount(page_endpoints.DOCS_FILES, StaticFiles(directory=files), name="docs")
