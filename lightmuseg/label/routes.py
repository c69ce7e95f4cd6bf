"""Every route of MONAI Label's server, and what has been decided of it: served, answered by ourselves, or closed."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute

from .requests import checked

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """MONAI Label's own answer is given."""


@dataclass(frozen=True)
class Ours:
    """We answer it ourselves; see endpoints and server."""


@dataclass(frozen=True)
class Closed:
    """It is answered by 403 and the reason."""

    reason: str


Decision = Served | Ours | Closed
SERVED, OURS = Served(), Ours()
_SESSIONS = Closed(
    "sessions are closed: send the picture with POST /infer/wsi_v2, or put it into the folder of slides."
)
_BATCH = Closed("batches are closed: segment many slides by the command lightmuseg cohort.")
_OLD = Closed("this way is closed, as MONAI Label deprecates it: use that of the image, label, model or method.")
_NOTHING = Closed("there is nothing here.")
_UNDECIDED = Closed("it is not known to this version of LightMuSeg, and closed for that.")

ROUTES: dict[str, Decision] = {
    "GET /": OURS,
    "GET /docs": OURS,
    "GET /openapi.json": OURS,
    "GET /favicon.ico": OURS,
    "MOUNT /static": _NOTHING,
    "GET /info/": SERVED,
    "GET /auth/": SERVED,
    "POST /auth/token": SERVED,
    "GET /auth/token/valid": SERVED,
    "POST /infer/{model}": OURS,
    "POST /infer/wsi/{model}": OURS,
    "POST /infer/wsi_v2/{model}": OURS,
    "GET /batch/infer": _BATCH,
    "POST /batch/infer/{model}": _BATCH,
    "DELETE /batch/infer": _BATCH,
    "GET /train/": OURS,
    "POST /train/": _OLD,
    "POST /train/{model}": OURS,
    "DELETE /train/": OURS,
    "GET /scoring/": OURS,
    "POST /scoring/": _OLD,
    "POST /scoring/{method}": OURS,
    "DELETE /scoring/": OURS,
    "POST /activelearning/{strategy}": OURS,
    "GET /datastore/": OURS,
    "PUT /datastore/": _OLD,
    "DELETE /datastore/": _OLD,
    "GET /datastore/image": SERVED,
    "HEAD /datastore/image": SERVED,
    "PUT /datastore/image": OURS,
    "DELETE /datastore/image": SERVED,
    "GET /datastore/image/info": SERVED,
    "PUT /datastore/image/info": OURS,
    "GET /datastore/label": SERVED,
    "HEAD /datastore/label": SERVED,
    "PUT /datastore/label": OURS,
    "DELETE /datastore/label": SERVED,
    "GET /datastore/label/info": SERVED,
    "PUT /datastore/label/info": OURS,
    "PUT /datastore/updatelabelinfo": _OLD,
    "GET /datastore/dataset": Closed("archives are closed: copy the folder of slides, which holds the labels too."),
    "GET /model/{model}": SERVED,
    "GET /model/info/{model}": SERVED,
    "PUT /model/{model}": Closed("weights are not taken by HTTP; start the server with --conf weights FILE."),
    "DELETE /model/{model}": Closed(
        "weights are not deleted by HTTP; bring others into use by training's use_version."
    ),
    "GET /logs/": OURS,
    "GET /logs/gpu": OURS,
    "GET /session/{session_id}": _SESSIONS,
    "PUT /session/": _SESSIONS,
    "DELETE /session/{session_id}": _SESSIONS,
    "GET /ohif/{path:path}": _NOTHING,
    "GET /proxy/dicom/wado/{path:path}": _NOTHING,
    "POST /proxy/dicom/wado/{path:path}": _NOTHING,
    "GET /proxy/dicom/qido/{path:path}": _NOTHING,
    "POST /proxy/dicom/qido/{path:path}": _NOTHING,
    "GET /proxy/dicom/stow/{path:path}": _NOTHING,
    "POST /proxy/dicom/stow/{path:path}": _NOTHING,
    "GET /proxy/dicom/{path:path}": _NOTHING,
    "POST /proxy/dicom/{path:path}": _NOTHING,
    "POST /reload": Closed("the app is not started anew by HTTP; stop the server and start it."),
}


def named_routes(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, BaseRoute]]:
    """Each route of a running application by method and path, such as ``GET /info/``."""
    for route in routes:
        # FastAPI keeps the routers that were included, older ones their routes
        included = getattr(route, "original_router", None)
        if included is not None:
            yield from named_routes(included.routes)
            continue
        methods = getattr(route, "methods", None) or {"MOUNT"}
        if not isinstance(route, APIRoute):
            # Starlette adds HEAD to GET
            methods = methods - {"HEAD"}
        for method in sorted(methods):
            yield f"{method} {getattr(route, 'path', '')}", route


def undecided(app: FastAPI) -> list[str]:
    """The routes of MONAI Label's application that nobody has decided on."""
    return [name for name, _ in named_routes(app.routes) if name not in ROUTES]


def take_over(app: FastAPI, stock: FastAPI) -> None:
    """Give ``app`` what is served or closed of ``stock``, MONAI Label's application.

    What nobody has decided on is closed, and the log says so.
    """
    for name in undecided(stock):
        logger.warning("%s: %s", name, _UNDECIDED.reason)
    for name, route in named_routes(stock.routes):
        decision = ROUTES.get(name, _UNDECIDED)
        if decision is OURS:
            continue
        method, path = name.split(" ", 1)
        if isinstance(decision, Closed) or not isinstance(route, APIRoute):
            reason = decision.reason if isinstance(decision, Closed) else _UNDECIDED.reason
            methods, path = ([method], path) if method != "MOUNT" else (["GET", "HEAD"], path + "/{path:path}")
            app.add_api_route(path, _closed(reason), methods=methods, include_in_schema=False)
            continue
        app.add_api_route(
            path, in_a_thread(route.endpoint), methods=[method], summary=route.summary, tags=route.tags,
            dependencies=[Depends(checked)],
        )  # fmt: skip


def _closed(reason: str) -> Callable[[], None]:
    async def answer() -> None:
        raise HTTPException(403, reason)

    return answer


def in_a_thread(endpoint: Callable[..., Any]) -> Callable[..., Response]:
    """An endpoint of MONAI Label as a plain function, which FastAPI runs beside the event loop; it makes a response."""
    return _with_signature(endpoint, lambda **given: ready(run_through(endpoint, **given)))


def without_waiting(dependency: Callable[..., Any]) -> Callable[..., Any]:
    """A dependency of MONAI Label likewise."""
    return _with_signature(dependency, lambda **given: run_through(dependency, **given))


def run_through(coroutine_function: Callable[..., Any], **given: Any) -> Any:
    """What a coroutine function gives that waits for nothing, as all of MONAI Label's: they keep the event loop busy.

    Raises:
        TypeError: where it does wait for something.
    """
    coroutine = coroutine_function(**given)
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise TypeError(f"{coroutine_function.__qualname__} waits for something, and cannot be run in a thread")


def _with_signature(like: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    function.__name__, function.__doc__ = like.__name__, like.__doc__
    function.__signature__ = inspect.signature(like)
    return function


def ready(content: Any) -> Response:
    """A response, made of plain values where it is not one yet."""
    if isinstance(content, Response):
        return content
    # most is plain, and the encoder would go through every number of it in Python
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable_encoder)
    return Response(text, media_type="application/json")
