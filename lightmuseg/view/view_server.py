"""The server of the page: where it listens, and how it starts and ends."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from lightmuseg.errors import InputError

logger = logging.getLogger(__name__)
# Seconds that an answer may still take when the server is ended.
GRACE = 2


def serve(folder: Path, host: str, port: int, started: Callable[[str, int], None]) -> None:
    """Show the results of a folder in browsers until it is interrupted.

    Args:
        folder: of results, such as the output of ``lightmuseg segment`` or ``cohort``.
        host: address to listen at; another than this computer's own lets others in, without password or encryption.
        port: to listen at; 0 for a free one.
        started: is called with the page's address and the number of results once it listens.

    Raises:
        InputError: where there is no such folder, or it cannot be listened there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; name the output of lightmuseg segment or cohort.")
    if not 0 <= port <= 65535:
        raise InputError(f"--port {port}: give a whole number, 0 to 65535.")
    with listen(host, port) as listening:
        import uvicorn

        from lightmuseg.guard import is_loopback

        from .app import make_app
        from .result_list import Results

        if not is_loopback(host):
            logger.warning(
                "--host %s: everybody who reaches this computer can look at these slides; there is no password and no "
                "encryption.", host,
            )  # fmt: skip
        results = Results(folder)
        name = f"[{host}]" if ":" in host else host
        started(f"http://{name}:{listening.getsockname()[1]}", len(results.refresh()))
        config = uvicorn.Config(
            make_app(results, host), log_level="error", access_log=False, server_header=False, ws="none",
            timeout_graceful_shutdown=GRACE,
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            # that is how it is ended
            return


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        InputError: where that cannot be, or the server's packages are not installed.
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise InputError("starlette and uvicorn are not installed; pip install 'lightmuseg[view]'.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family)
        # or the end of a tile waits 40 ms for the browser's word that it has the beginning; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{host}:{port}: cannot be listened at ({reason}); give another --port, or another --host."
        ) from error
