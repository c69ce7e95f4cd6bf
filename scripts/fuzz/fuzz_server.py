"""A server of this computer that is fuzzed: how it is asked and started, and what it may not touch."""

from __future__ import annotations

import contextlib
import fnmatch
import http.client
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
from fuzz_requests import Asked, multipart
from fuzz_values import KNOWN, LABEL, MARK, PICTURES

from lightmuseg.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
# of an answer that is looked at
MOST_BYTES = 20_000_000
# of the repository, what is made by running it, and the server's log
NOT_WATCHED = (".git", "__pycache__", ".venv*", ".*_cache", "logs")


@dataclass(frozen=True)
class Server:
    """A server of this computer.

    Attributes:
        address: such as ``http://127.0.0.1:8000``.
        process: that listens there.
        studies: the folder that it serves.
        watched: folders where it may write nothing; of some others only the names of what is there are looked at.
    """

    address: str
    process: psutil.Process
    studies: Path
    watched: tuple[Path, ...]


@dataclass(frozen=True)
class Answer:
    """What came back; the status is 0 where nothing did, and the body says why."""

    status: int
    body: bytes
    seconds: float
    headers: dict[str, str] = field(default_factory=dict)


def send(address: str, asked: Asked, seconds: float) -> Answer:
    """Send a request as it is, and wait so long for the answer."""
    server, started = urlsplit(address), time.monotonic()
    try:
        with socket.create_connection((server.hostname, server.port), timeout=seconds) as connection:
            # who refuses a body need not read it
            with contextlib.suppress(ConnectionError):
                connection.sendall(asked.raw(server.netloc))
                if asked.broken:
                    connection.shutdown(socket.SHUT_WR)
            response = http.client.HTTPResponse(connection, method=asked.method)
            response.begin()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, response.read(MOST_BYTES), time.monotonic() - started, headers)
    except TimeoutError:
        # which is late
        return Answer(0, b"no answer", max(time.monotonic() - started, seconds + 1e-3))
    except (OSError, http.client.HTTPException) as error:
        return Answer(0, f"no answer: {type(error).__name__} {error}".encode(), time.monotonic() - started)


def peaks(process: psutil.Process) -> dict[str, int]:
    """The most memory that the server, its process of inference and its others took so far, in bytes."""
    found: dict[str, int] = {}
    with contextlib.suppress(psutil.Error):
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                inference = "lightmuseg.label.inference_process" in one.cmdline()
                kind = "server" if one == process else "inference" if inference else "background"
                # as the kernel counts it; a process that has just ended has none
                peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{one.pid}/status").read_text(encoding="utf-8"))
                found[kind] = max(1024 * int(peak[1]) if peak else 0, found.get(kind, 0))
    return found


def listed(folder: Path, deep: bool) -> dict[str, Any]:
    """What is in a folder: of a deep one size and time of each file, of another the names."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if any(fnmatch.fnmatch(entry.name, pattern) for pattern in NOT_WATCHED):
                continue
            with contextlib.suppress(OSError):
                is_folder, stat = entry.is_dir(follow_symlinks=False), entry.stat(follow_symlinks=False)
                found[entry.path] = (stat.st_size, stat.st_mtime_ns) if deep and not is_folder else is_folder
                found |= listed(Path(entry.path), True) if deep and is_folder else {}
    return found


class Folders:
    """What a server may not touch: files outside of its folder, and inside it pictures and versions of labels."""

    def __init__(self, server: Server, others: str) -> None:
        self._studies, self._others = server.studies, [pattern for pattern in others.split(",") if pattern]
        home, beside = Path.home(), server.studies.parent
        shallow = {Path("/"), Path("/etc"), home, home / ".cache", Path.cwd(), beside, Path(tempfile.gettempdir())}
        self._watched = [*((folder, False) for folder in shallow), *((folder, True) for folder in server.watched)]
        self._before, self._kept = self._outside(), {}

    def _outside(self) -> dict[str, Any]:
        return {path: stamp for watched in self._watched for path, stamp in listed(*watched).items()}

    def touched(self) -> Iterator[str]:
        """Files outside that are not as they were at first."""
        after = self._outside()
        for path in sorted({*after, *self._before}):
            # nobody else writes beside the folder, nor has our names
            ours = path.startswith(f"{self._studies.parent}/") or MARK in Path(path).name
            other = not ours and any(fnmatch.fnmatch(path, pattern) for pattern in self._others)
            within = f"{path}/".startswith(f"{self._studies}/") or "/lightmuseg-label-" in path
            if after.get(path) != self._before.get(path) and not (other or within):
                change = "is gone" if path not in after else "has changed" if path in self._before else "is new"
                yield f"{path}: {change}"

    def lost(self) -> list[str]:
        """Pictures and versions that are not as they were when they were looked at last."""
        worth = [*(self._studies / name for name in PICTURES), *self._studies.glob("labels/*/versions/*/*")]
        now = {path: path.read_bytes() for path in worth if path.is_file()}
        before, self._kept = self._kept, now
        return [str(path.relative_to(self._studies)) for path, content in before.items() if now.get(path) != content]

    def put_back(self, address: str, seconds: float) -> None:
        """The pictures, and a label of the first, where they are not there."""
        for name, content in PICTURES.items():
            if not (self._studies / name).is_file():
                (self._studies / name).write_bytes(content)
        if not any(self._studies.glob(f"labels/final/{KNOWN['image']}.*")):
            media, form = multipart({"label": ("a.geojson", LABEL)})
            headers = (("Content-Type", media),)
            send(
                address, Asked("", "", "PUT", f"/datastore/label?image={quote(KNOWN['image'])}", headers, form), seconds
            )
        self.lost()


@contextlib.contextmanager
def own_server(folder: Path) -> Iterator[Server]:
    """A server of two pictures in ``folder/studies``, as scripts/label.sh starts it; prints the bugs that it logged."""
    script = ["bash", str(ROOT / "scripts" / "label.sh")]
    subprocess.run([*script, "--setup"], check=True)
    for name in ("studies", "temporary", "logs"):
        (folder / name).mkdir()
    for name, content in PICTURES.items():
        (folder / "studies" / name).write_bytes(content)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = folder / "logs" / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*script, str(folder / "studies"), "--port", str(port), "--conf", "patches", "1"],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder / "temporary")},
        )  # fmt: skip
    try:
        address, started = f"http://127.0.0.1:{port}", time.monotonic()
        while send(address, Asked("", "", "GET", "/info/"), 5).status != 200:
            if process.poll() is not None or time.monotonic() - started > 300:
                raise InputError(f"the server does not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(1)
        yield Server(address, psutil.Process(process.pid), folder / "studies", (ROOT, folder / "temporary"))
        ends = re.findall(r"^Traceback .*\n(?: .*\n)+(.{1,150})", log.read_text(errors="replace"), re.MULTILINE)
        print(*(f"{count} tracebacks in its log: {end}" for end, count in Counter(ends).items()), sep="\n")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def listening(address: str) -> psutil.Process:
    """The process of this computer that listens there."""
    for one in psutil.net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN and one.laddr.port == urlsplit(address).port and one.pid:
            return psutil.Process(one.pid)
    raise InputError(f"{address}: nothing of this computer listens there; give that of bash scripts/label.sh DIR.")
