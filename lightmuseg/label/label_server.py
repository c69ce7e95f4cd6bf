"""MONAI Label's server with limits, as ``monailabel start_server --uvicorn_app`` takes it."""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import filelock
import psutil
import pydantic
import requests
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from lightmuseg.errors import InputError, first_line, user_fault
from lightmuseg.guard import Guard
from lightmuseg.networks.torchvision_operators import declare_missing_operators

from .faults import fault_line
from .inference import Inference
from .parent import SERVER
from .request_checks import FORM_LIMITS, MAX_BODY_BYTES

# monailabel imports torchvision
declare_missing_operators()

from monailabel.app import app as stock  # noqa: E402
from monailabel.endpoints.user.auth import get_current_user  # noqa: E402
from monailabel.interfaces import exception  # noqa: E402
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.utils.app import app_instance  # noqa: E402
from monailabel.utils.async_tasks.utils import background_executors, background_processes  # noqa: E402

from .endpoints import add_own  # noqa: E402
from .routes import in_a_thread, take_over  # noqa: E402

logger = logging.getLogger(__name__)

# where it listens, and other names by which browsers may know it; a page of another name that leads here is refused
HOST, *NAMES = os.environ.get("LIGHTMUSEG_LABEL_HOSTS", "127.0.0.1,localhost").split(",")
FOLDER = "lightmuseg-label-"
# nothing that is sent is a page; the pages have policies of their own
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start MONAI Label's app and the process that segments; both end with the server."""
    os.environ[SERVER] = str(os.getpid())
    instance = _started()
    instance.server_mode(True)
    instance.on_init_complete()
    remove_folders_of_killed_servers()
    # half a million objects of libraries stay; a search for garbage among them would halt all answers for half a second
    gc.collect()
    gc.freeze()
    with tempfile.TemporaryDirectory(prefix=f"{FOLDER}{os.getpid()}-", ignore_cleanup_errors=True) as folder:
        app.state.folder, app.state.inference = Path(folder), Inference(Path(folder))
        await app.state.inference.start()
        yield
        await app.state.inference.stop()
        end_tasks()


def _started() -> MONAILabelApp:
    """MONAI Label's app for the folder; a fault of the folder or the options ends the process with a line."""
    try:
        return app_instance()
    except Exception as error:
        fault = user_fault(error)
        if fault is None:
            raise
        print(f"\nlightmuseg: error: {fault}", file=sys.stderr, flush=True)
        # to raise it would have Starlette and Uvicorn show their tracebacks
        os._exit(1)


def end_tasks() -> None:
    """End the training and the scoring that run, and forget those that wait: Python would not end before they have."""
    for executor in background_executors.values():
        executor.shutdown(wait=False, cancel_futures=True)
    for processes in background_processes.values():
        for process in list(processes.values()):
            process.kill()


def remove_folders_of_killed_servers() -> None:
    """Remove the files of answers and requests that servers left which were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{FOLDER}[0-9]*-*"):
        if path.stat().st_uid == os.getuid() and not psutil.pid_exists(int(path.name.split("-")[2])):
            shutil.rmtree(path, ignore_errors=True)


def _refusal(status: int, line: Callable[[Exception], str]) -> Callable[[Request, Exception], JSONResponse]:
    def answer(request: Request, error: Exception) -> JSONResponse:
        logger.info("%s %s: %s", request.method, request.url.path, first_line(error))
        return JSONResponse({"detail": line(error)}, status_code=status)

    return answer


def _after(reason: str) -> Callable[[Exception], str]:
    return lambda error: f"{reason}: {first_line(error)}"


def _malformed(error: Exception) -> str:
    """What is wrong with a request, without what was sent, which may be no JSON."""
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])[:1000]


def _no_room(request: Request, error: Exception) -> JSONResponse:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise error
    return JSONResponse({"detail": f"the server's disk is full ({error.strerror}); free some space."}, status_code=507)


# QuPath's extension marks no body as JSON; pages of others, which may send none, are refused by the guard
app = FastAPI(
    title="LightMuSeg label server", lifespan=lifespan, docs_url=None, redoc_url=None, max_body_size=MAX_BODY_BYTES,
    strict_content_type=False, form_limits=FORM_LIMITS,
    exception_handlers={
        InputError: _refusal(400, lambda error: fault_line(error, app_instance().studies)),
        json.JSONDecodeError: _refusal(400, _after("the request is not as expected")),
        RequestValidationError: _refusal(422, _malformed),
        exception.ImageNotFoundException: _refusal(404, lambda error: error.msg),
        exception.LabelNotFoundException: _refusal(404, lambda error: error.msg),
        exception.MONAILabelException: _refusal(400, lambda error: first_line(ValueError(error.msg))),
        OSError: _no_room,
        filelock.Timeout: _refusal(503, _after("another process changes the list of images; try again")),
        pydantic.ValidationError: _refusal(422, _after("the request is not as expected")),
        psutil.NoSuchProcess: _refusal(404, _after("it has ended already")),
        requests.RequestException: _refusal(503, _after("the identity provider cannot be asked")),
    },
)  # fmt: skip
add_own(app)
take_over(app, stock)
# it asks the identity provider by HTTP, which others need not wait for
app.dependency_overrides[get_current_user] = in_a_thread(get_current_user)
app.add_middleware(Guard, host=HOST, names=NAMES, policy=POLICY)
