"""What web servers have: asked for again where they fail, bounded, and files resumed where they broke off."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from lightmuseg import __version__
from lightmuseg.errors import InputError, first_line
from lightmuseg.files import make_folder, show

Answer = TypeVar("Answer")
# Is called with the bytes that arrived; with less than nothing where a file has to be fetched anew.
Received = Callable[[int], None]

TIMEOUT_S = 60.0
# how often a server is asked that has answered before, and one that has not, without a byte in between
TRIES, FIRST_TRIES = 8, 3
# before the second time; twice as long before each further one
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# statuses that pass: too slow, too many requests, and a server's own troubles
PASSING = (408, 429, 500, 502, 503, 504)
MOST_JSON_BYTES = 50_000_000
_BLOCK = 1 << 18
# what the network does, and never the disk
_FAULTS = (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, http.client.HTTPException)


def unheeded(count: int) -> None:
    """A :data:`Received` that counts nothing."""


class NoAnswer(InputError):
    """A server cannot be reached or does not give what it is asked for.

    Attributes:
        status: HTTP's, of a refusal.
        is_reached: whether it has answered anything.
    """

    status: int | None = None
    is_reached: bool = True


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirections, but none from an encrypted connection to a plain one."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise urllib.error.HTTPError(req.full_url, code, "leads to a connection without encryption", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Web:
    """Servers of HTTP, through the proxies that the environment names; threads may share it.

    Attributes:
        stopped: once it is set, all that is under way ends with :class:`NoAnswer`.
    """

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._answered: set[str] = set()
        # urllib's own opener reads files and FTP too
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(), _Redirects(),
            urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(),
            urllib.request.UnknownHandler(),
        ):  # fmt: skip
            self._opener.add_handler(handler)

    def json(self, url: str, query: Any = None) -> Any:
        """The JSON that a server answers.

        Args:
            url: its address.
            query: what is sent to it as JSON, by POST; None to GET.

        Raises:
            NoAnswer: where there is none.
        """
        content = self.content(url, MOST_JSON_BYTES, query=query)
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise NoAnswer(f"{_shown(url)}: answers no JSON ({first_line(error)}).") from error

    def content(self, url: str, most_bytes: int, received: Received = unheeded, query: Any = None) -> bytes:
        """What a server sends, in memory.

        Args:
            url: its address.
            most_bytes: more are not taken.
            received: takes the number of bytes of each part, negative for bytes that are to come again.
            query: as of :meth:`json`.

        Raises:
            NoAnswer: where it does not come, or is larger.
        """
        body = None if query is None else json.dumps(query).encode()

        def attempt() -> bytes:
            parts: list[bytes] = []
            try:
                with self._opened(url, {} if body is None else {"Content-Type": "application/json"}, body) as answer:
                    if answer.status != 200:
                        # 202 is what guards of servers say to those whom they take for robots
                        raise http.client.HTTPException(f"answers {answer.status} {answer.reason}")
                    self._take(answer, url, most_bytes, parts.append, received)
                    # of the length that was stated
                    if answer.length:
                        raise ConnectionError("the connection broke off")
            except BaseException:
                received(-sum(map(len, parts)))
                raise
            return b"".join(parts)

        return self._patiently(url, attempt)

    def file(self, url: str, path: Path, size: int, md5: str, received: Received = unheeded) -> None:
        """Fetch a file, which appears whole or not at all.

        What arrived is kept beside it, with the ending .part, and the next call fetches the rest.

        Args:
            url: its address.
            path: that it gets.
            size: in bytes.
            md5: of its bytes, in hexadecimal digits.
            received: takes the number of bytes of each part, negative for bytes that are to come again.

        Raises:
            NoAnswer: where it does not come, or is another one.
            OSError: where it cannot be written.
        """
        part = path.with_name(f"{path.name}.part")
        make_folder(path.parent)
        for _ in range(2):
            self._patiently(url, lambda: self._append(url, part, size, received), lambda: size_of(part))
            if (found := _md5_of(part)) == md5:
                show(part, path)
                return
            part.unlink()
            received(-size)
        raise NoAnswer(f"{_shown(url)}: came twice with the MD5 {found}, not {md5}.")

    def _append(self, url: str, part: Path, size: int, received: Received) -> None:
        start = size_of(part)
        if start > size:
            part.unlink()
            start = 0
        with _naming(part), part.open("ab") as file:
            if start == size:
                return
            with self._opened(url, {"Range": f"bytes={start}-"} if start else {}) as answer:
                if answer.status not in (200, 206):
                    raise http.client.HTTPException(f"answers {answer.status} {answer.reason}")
                if start and answer.status == 200:
                    # a server that knows no ranges sends everything
                    file.truncate(0)
                    received(-start)
                    start = 0
                elif start and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                    raise http.client.HTTPException("answers another part of the file")
                self._take(answer, url, size - start, file.write, received)
        if size_of(part) < size:
            raise ConnectionError("the connection broke off")

    def _take(self, answer: Any, url: str, most_bytes: int, keep: Callable[[bytes], Any], received: Received) -> None:
        """Hand the parts of an answer on, as far as it is no larger than it may be."""
        left = most_bytes
        while block := _next_block(answer):
            left -= len(block)
            if left < 0:
                raise NoAnswer(f"{_shown(url)}: sends more than {most_bytes} bytes.")
            if self.stopped.is_set():
                raise NoAnswer(f"{_shown(url)}: was stopped.")
            keep(block)
            received(len(block))

    def _opened(self, url: str, headers: dict[str, str], body: bytes | None = None) -> Any:
        if urlsplit(url).scheme not in ("http", "https"):
            raise InputError(f"{_shown(url)}: is no address of a web server; give one that begins with https://.")
        request = urllib.request.Request(url, body, {"User-Agent": f"lightmuseg/{__version__}", **headers})
        return self._opener.open(request, timeout=TIMEOUT_S)

    def _patiently(self, url: str, attempt: Callable[[], Answer], position: Callable[[], int] | None = None) -> Answer:
        """``attempt()``, again where it fails for a reason that may pass, longer where ``position()`` goes on."""
        host = urlsplit(url).netloc
        failures = 0
        while True:
            start = position() if position is not None else 0
            asked_pause = ""
            try:
                answer = attempt()
                self._answered.add(host)
                return answer
            except urllib.error.HTTPError as error:
                self._answered.add(host)
                with error:
                    # a server may write anything behind its number
                    reason = " ".join(f"{error.code} {error.reason}".split())[:160]
                    asked_pause = error.headers.get("Retry-After", "")
                if error.code not in PASSING:
                    fault = NoAnswer(f"{_shown(url)}: answers {reason}.")
                    fault.status = error.code
                    raise fault from error
            except _FAULTS as error:
                reason = str(getattr(error, "reason", None) or first_line(error))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise NoAnswer(f"{_shown(url)}: leads to what is no address ({first_line(error)}).") from error
            failures = 1 if position is not None and position() > start else failures + 1
            if failures >= (TRIES if host in self._answered else FIRST_TRIES):
                fault = NoAnswer(f"{_shown(url)}: cannot be reached ({reason}).")
                fault.is_reached = host in self._answered
                raise fault
            pause = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
            if asked_pause.isdecimal():
                pause = min(max(pause, float(asked_pause)), LONGEST_PAUSE_S)
            if self.stopped.wait(pause):
                raise NoAnswer(f"{_shown(url)}: was stopped.")


def _next_block(answer: Any) -> bytes:
    try:
        return answer.read1(_BLOCK)
    except OSError as error:
        # a network that is gone is not always a ConnectionError, and passes as these do
        raise ConnectionError(first_line(error)) from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the disk name the file that was being written."""
    try:
        yield
    except OSError as error:
        if error.filename is None and not isinstance(error, _FAULTS):
            error.filename = str(path)
        raise


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _shown(url: str) -> str:
    return url.partition("?")[0][:200]


def _md5_of(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
