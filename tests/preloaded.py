"""Commands of Python without the seconds that libraries take to load: a server has loaded them and forks for each.

    server = Preloaded(MODULES)
    server.run(["-m", "monai.bundle", "run", "training"], ...)     as subprocess.run(["python", ...])
    server.executable                                              a program that does what "python" does

In a command ``sys.executable`` is that program, so what it starts in turn is preloaded too. preloaded_server.py says
what is started truly all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

# What commands of the package, the bundle and the scripts load.
LIBRARIES = (
    "fire", "monai.bundle", "monai.handlers", "tensorboard", "torch.utils.tensorboard", "lightmuseg.cli",
    "lightmuseg.data.prepare", "lightmuseg.handlers", "lightmuseg.inferers", "lightmuseg.losses", "lightmuseg.metrics",
    "lightmuseg.slides.bundle_config", "lightmuseg.slides.job",
)  # fmt: skip
SERVER = Path(__file__).with_name("preloaded_server.py")


class Command:
    """A command that a server runs: what :class:`subprocess.Popen` is for a process of one's own.

    Attributes:
        pid: of its process.
        returncode: its exit status, or the negative number of the signal that ended it; None while it runs.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.returncode: int | None = None
        self.pid = self._number()

    def _number(self) -> int:
        received = b""
        while len(received) < 4:
            more = self._connection.recv(4 - len(received))
            if not more:
                raise RuntimeError("the server of preloaded commands has ended")
            received += more
        return int.from_bytes(received, "big", signed=True)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, when it has ended."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                self.returncode = self._number()
            except TimeoutError:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0) from None
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit status, or None while it runs."""
        try:
            return self.wait(1e-6)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)


def start(path: str, words: list[str], cwd: str, environment: dict[str, str], streams: tuple[int, int, int]) -> Command:
    """Have the server at ``path`` start ``python WORDS`` with these standard streams."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    message = json.dumps({"words": words, "cwd": cwd, "environment": environment}).encode()
    socket.send_fds(connection, [len(message).to_bytes(4, "big")], streams)
    connection.sendall(message)
    return Command(connection)


class Preloaded:
    """A server of commands, until it is closed or this process ends.

    Args:
        modules: what it loads.
        python: the interpreter.
        environment: of the server; by default this process's.

    Attributes:
        executable: a program that does what the interpreter does.
    """

    def __init__(self, modules: Sequence[str], python: str = sys.executable, environment: dict | None = None) -> None:
        # paths of sockets must be short
        self._folder = tempfile.TemporaryDirectory()
        self._socket = str(Path(self._folder.name, "socket"))
        executable = Path(self._folder.name, "python")
        executable.write_text(f"#!/bin/sh\nexec '{sys.executable}' -IS '{__file__}' '{self._socket}' \"$@\"\n")
        executable.chmod(0o755)
        self.executable = str(executable)
        self._process = subprocess.Popen(
            [python, str(SERVER), self._socket, self.executable, *modules],
            env={**(os.environ if environment is None else environment), "PYTHONPATH": ""},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if not self._process.stdout.read(1):
            raise RuntimeError("the server of preloaded commands did not start")

    def start(self, words: list[str], cwd: str, environment: dict[str, str], stdout: int, stderr: int) -> Command:
        """Start a command that reads nothing and writes to these files."""
        with open(os.devnull) as nothing:
            return start(self._socket, words, cwd, environment, (nothing.fileno(), stdout, stderr))

    def run(self, words: list[str], cwd: str, environment: dict[str, str], timeout: float) -> tuple[int, str, str]:
        """Run a command to its end: its exit status, and what it wrote to its streams."""
        with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
            command = self.start(words, cwd, environment, stdout.fileno(), stderr.fileno())
            try:
                status = command.wait(timeout)
            except subprocess.TimeoutExpired:
                command.send_signal(signal.SIGKILL)
                raise
            for stream in (stdout, stderr):
                stream.seek(0)
            return status, stdout.read(), stderr.read()

    def close(self) -> None:
        """End the server and what it still runs."""
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()


@contextlib.contextmanager
def preloaded_environment(folder: Path, modules: Sequence[str], environment: dict[str, str]) -> Iterator[None]:
    """Have what the interpreter of an environment starts be preloaded; ``true-python`` is the interpreter itself.

    Args:
        folder: of the environment.
        modules, environment: as of :class:`Preloaded`.
    """
    python = folder / "bin" / "python"
    true = python.rename(python.with_name("true-python"))
    server = Preloaded(modules, str(true), environment)
    python.symlink_to(server.executable)
    yield
    server.close()


if __name__ == "__main__":
    status = start(sys.argv[1], sys.argv[2:], str(Path.cwd()), dict(os.environ), (0, 1, 2)).wait()
    sys.exit(status if status >= 0 else 128 - status)
