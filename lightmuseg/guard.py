"""Who may ask one of our servers, for what, and what its answers allow a browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The one style that OpenSeadragon writes into the page, for phones.
OPENSEADRAGON_STYLE = "sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE="
PAGE_POLICY = (
    f"default-src 'self'; style-src 'self' '{OPENSEADRAGON_STYLE}'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# A report has its styles and pictures within, and nothing that runs.
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches a server that listens at ``host``."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Let only requests pass that ask under a name of this server, and bound what a browser does with the answer.

    A page elsewhere can make its own name lead to 127.0.0.1 ("DNS rebinding") and then ask as if it were ours, so the
    header Host must hold a name of this server, or an address, which nobody can redirect. Another page can also have a
    browser send something, so the header Origin must be this server's own scheme, name and port. Programs send none.

    Args:
        app: what answers.
        host: where the server listens; this computer's own name is known too where it is not loopback.
        names: others by which the server is known, such as that of a proxy before it.
        methods: of the requests that pass; all where there are none.
        policy: Content-Security-Policy of answers that have none of their own.
    """

    def __init__(
        self, app: ASGIApp, host: str, names: Sequence[str] = (), methods: Sequence[str] = (), policy: str = PAGE_POLICY
    ) -> None:
        self.app, self._methods = app, methods
        self._headers = {**_HEADERS, "content-security-policy": policy}
        self._local = is_loopback(host)
        own = () if self._local else (socket.gethostname(), socket.getfqdn())
        self._names = {name.lower() for name in ("localhost", host, *names, *own)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # a WebSocket is nothing that these servers have
            return await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _refuse_socket(send))

        async def bounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._refusal(scope) or self.app
        await answer(scope, receive, bounded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        hosts, origins = (
            [value.decode("latin-1").lower() for name, value in scope["headers"] if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return PlainTextResponse("this server does not answer under that name", 421)
        if any(origin != f"{scope['scheme']}://{hosts[0]}" for origin in origins):
            return PlainTextResponse("pages of other servers may not use this one", 403)
        if self._methods and scope["method"] not in self._methods:
            allowed = ", ".join(self._methods)
            return PlainTextResponse(f"only {allowed} is answered here", 405, {"Allow": allowed})
        return None

    def _knows(self, header: str) -> bool:
        try:
            parts = urlsplit(f"//{header}")
            name = parts.hostname
        except ValueError:
            return False
        if name is None or parts.netloc != header or "@" in header:
            return False
        if _is_address(name):
            return not self._local or ipaddress.ip_address(name).is_loopback
        return name in self._names


async def _refuse_socket(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})
