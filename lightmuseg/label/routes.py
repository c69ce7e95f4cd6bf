"""Every route of MONAI Label's server is served, answered by our own endpoints, or closed; what is new is closed."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.encoders import jsonable_encoder
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import BaseRoute

from .request_checks import checked

logger = logging.getLogger(__name__)

# routes of which MONAI Label's own answer is given
SERVED = (
    "GET /info/", "GET /auth/", "POST /auth/token", "GET /auth/token/valid", "GET /model/{model}",
    "GET /model/info/{model}", "GET /datastore/image", "HEAD /datastore/image", "DELETE /datastore/image",
    "GET /datastore/image/info", "PUT /datastore/image/info", "GET /datastore/label", "HEAD /datastore/label",
    "DELETE /datastore/label", "GET /datastore/label/info", "PUT /datastore/label/info",
)  # fmt: skip
_NOTHING = "there is nothing here."
_OLD = "this way is closed, as MONAI Label deprecates it: use that of the image, label, model or method."
_SESSIONS = "sessions are closed: send the picture with POST /infer/wsi_v2, or put it into the folder of slides."
# patterns of routes that are answered by 403, and the reason
CLOSED = {
    "MOUNT /static": _NOTHING,
    "* /ohif/*": _NOTHING,
    "* /proxy/*": _NOTHING,
    "* /session/*": _SESSIONS,
    "* /batch/*": "batches are closed: segment many slides by the command lightmuseg cohort.",
    "POST /train/": _OLD,
    "POST /scoring/": _OLD,
    "PUT /datastore/": _OLD,
    "DELETE /datastore/": _OLD,
    "PUT /datastore/updatelabelinfo": _OLD,
    "GET /datastore/dataset": "archives are closed: copy the folder of slides, which holds the labels too.",
    "PUT /model/{model}": "weights are not taken by HTTP; start the server with --conf weights FILE.",
    "DELETE /model/{model}": "weights are not deleted by HTTP; bring others into use by training's use_version.",
    "POST /reload": "the app is not started anew by HTTP; stop the server and start it.",
}
_UNDECIDED = "it is not known to this version of LightMuSeg, and closed for that."


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


def take_over(app: FastAPI, stock: FastAPI) -> list[str]:
    """Give ``app``, which has its own routes already, the others of ``stock``, MONAI Label's application.

    Returns:
        Those that nobody has decided on; they are closed, and the log names them.
    """
    own = {name for name, _ in named_routes(app.routes)}
    undecided = []
    for name, route in named_routes(stock.routes):
        method, path = name.split(" ", 1)
        if name in own:
            continue
        if name in SERVED and isinstance(route, APIRoute):
            app.add_api_route(
                path, in_a_thread(route.endpoint, ready), methods=[method], summary=route.summary, tags=route.tags,
                dependencies=[Depends(checked)],
            )  # fmt: skip
            continue
        reason = next((CLOSED[pattern] for pattern in CLOSED if fnmatchcase(name, pattern)), _UNDECIDED)
        if reason is _UNDECIDED:
            logger.warning("%s: %s", name, reason)
            undecided.append(name)
        methods, path = ([method], path) if method != "MOUNT" else (["GET", "HEAD"], path + "/{path:path}")
        app.add_api_route(path, _closed(reason), methods=methods, include_in_schema=False)
    return undecided


def _closed(reason: str) -> Callable[[], Any]:
    async def answer() -> None:
        raise HTTPException(403, reason)

    return answer


def in_a_thread(function: Callable[..., Any], finish: Callable[[Any], Any] | None = None) -> Callable[..., Any]:
    """A coroutine function of MONAI Label as a plain one, which FastAPI runs in a thread beside the event loop.

    MONAI Label's wait for nothing, but keep the event loop busy; one that does wait raises a TypeError when called.
    ``finish`` makes the result of what the function returns.
    """

    def run(**arguments: Any) -> Any:
        coroutine = function(**arguments)
        try:
            coroutine.send(None)
        except StopIteration as done:
            return finish(done.value) if finish else done.value
        coroutine.close()
        raise TypeError(f"{function.__qualname__} waits for something, and cannot be run in a thread")

    # not functools.wraps, by which FastAPI finds the coroutine function again
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = inspect.signature(function)
    return run


def ready(content: Any) -> Response:
    """A response, made of plain values where it is not one yet."""
    if isinstance(content, Response):
        return content
    # most is plain, and the encoder would go through every number of it in Python
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=jsonable_encoder)
    return Response(text, media_type="application/json")
