"""MONAI Label's server with limits, as ``monailabel start_server --uvicorn_app`` takes it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import pydantic
from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightmuseg.errors import first_line
from lightmuseg.networks.torchvision_operators import declare_missing_operators

# monailabel imports torchvision
declare_missing_operators()

from monailabel.app import app  # noqa: E402

# of a request: the largest slide and its form
MAX_BODY_BYTES = 4_100_000_000
# Ways that ask for nothing our app has: a proxy to other servers, their viewer, and starting the app anew.
CLOSED = ("/proxy", "/ohif", "/reload")
# names by which browsers may know the server; a page of another name that leads here is refused
HOSTS = os.environ.get("LIGHTMUSEG_LABEL_HOSTS", "127.0.0.1,localhost").split(",")


class LimitedBody:
    """Refuse a request whose body is larger than ``most`` bytes, as soon as that is known."""

    def __init__(self, app: ASGIApp, most: int = MAX_BODY_BYTES) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        stated = dict(scope["headers"]).get(b"content-length", b"0")
        if not stated.isdigit() or int(stated) > self.most:
            return await _too_large(self.most)(scope, receive, send)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.most:
                raise HTTPException(413, f"the request is larger than {self.most / 1e6:.0f} MB")
            return message

        await self.app(scope, counted, send)


class OwnPages:
    """Refuse ways that are closed, and what pages of other servers have a browser send; programs send no Origin."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path", "").startswith(CLOSED):
            return await JSONResponse({"detail": "there is nothing here"}, status_code=404)(scope, receive, send)
        origin = dict(scope.get("headers", ())).get(b"origin")
        if origin is not None and urlsplit(origin.decode("latin-1")).hostname not in self.hosts:
            refusal = JSONResponse({"detail": "pages of other servers may not use this one"}, status_code=403)
            return await refusal(scope, receive, send)
        await self.app(scope, receive, send)


def _too_large(most: int) -> JSONResponse:
    return JSONResponse({"detail": f"the request is larger than {most / 1e6:.0f} MB"}, status_code=413)


def _refused(status: int) -> Callable[[Request, Exception], JSONResponse]:
    def answer(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": f"the request is not as expected: {first_line(error)}"}, status_code=status)

    return answer


app.add_exception_handler(json.JSONDecodeError, _refused(400))
app.add_exception_handler(pydantic.ValidationError, _refused(422))
# MONAI Label's own lets every page in; told otherwise by its setting, it does not start
app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
app.add_middleware(LimitedBody)
app.add_middleware(OwnPages, hosts=HOSTS)
app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
