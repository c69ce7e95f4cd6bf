"""Who may ask the server, for what, and what its answers allow a browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
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
    "content-security-policy": PAGE_POLICY,
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
    """Let only GET and HEAD pass, under a name of this server, and bound what a browser does with the answer.

    A page elsewhere can make its own name lead to 127.0.0.1 ("DNS rebinding") and then ask as if it were ours; the
    name in the header Host tells. An address is no name that could be made to lead here.

    Args:
        app: what answers.
        host: where the server listens; this computer's own name is known too where it is not loopback.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self._local = is_loopback(host)
        names: Iterable[str] = ["localhost", host]
        if not self._local:
            names = [*names, socket.gethostname(), socket.getfqdn()]
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # a WebSocket is nothing that this server has
            return await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _refuse_socket(send))

        async def bounded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1 or not self._knows(hosts[0].decode("latin-1")):
            refusal = PlainTextResponse("this server does not answer under that name", 421)
            return await refusal(scope, receive, bounded)
        if scope["method"] not in ("GET", "HEAD"):
            refusal = PlainTextResponse("results are only shown here", 405, {"Allow": "GET, HEAD"})
            return await refusal(scope, receive, bounded)
        await self.app(scope, receive, bounded)

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
