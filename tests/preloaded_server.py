"""The server of preloaded.py: it loads modules, then forks for each command.

python preloaded_server.py SOCKET EXECUTABLE MODULE...      until standard input ends

What a fork would do otherwise than a process of its own is started truly: with options of Python that are not known
here, with variables that libraries may read when they load, and where another copy of the package would be loaded.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import warnings
from importlib.machinery import PathFinder
from pathlib import Path

# Variables that may differ from the server's: no library reads them when it loads, or the fork obeys them.
HARMLESS = {
    "COLUMNS", "LINES", "OLDPWD", "OMP_NUM_THREADS", "PATH", "PS1", "PWD", "PYTEST_CURRENT_TEST", "PYTHONPATH",
    "PYTHONWARNINGS", "SHLVL", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "_",
    # torchrun's
    "GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "RANK",
    "ROLE_NAME", "ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_ERROR_FILE", "TORCHELASTIC_MAX_RESTARTS",
    "TORCHELASTIC_RESTART_COUNT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_SIGNALS_TO_HANDLE",
    "TORCHELASTIC_USE_AGENT_STORE", "TORCH_NCCL_ASYNC_ERROR_HANDLING", "WORLD_SIZE",
}  # fmt: skip
OWN_PACKAGE = "lightmuseg"


class Server:
    """Fork for the commands that come over a socket.

    Args:
        path: of the socket.
        executable: the program that asks this server.
        modules: to load.
    """

    def __init__(self, path: str, executable: str, modules: list[str]) -> None:
        self._before = dict(os.environ)
        # without the folder of this file
        self._path = sys.path[1:]
        for name in modules:
            importlib.import_module(name)
        # processes that libraries start, which share more than their streams, are true ones
        self._true, sys.executable = sys.executable, executable
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen(64)
        self._selector = selectors.DefaultSelector()
        # connection and process by the descriptor of the process
        self._running: dict[int, tuple[socket.socket, int]] = {}
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def serve(self) -> None:
        """Serve until standard input ends."""
        self._selector.register(0, selectors.EVENT_READ, self._end)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        os.write(1, b"\n")
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _end(self) -> None:
        for _, pid in self._running.values():
            os.kill(pid, signal.SIGKILL)
        # without the seconds that taking down the libraries costs
        os._exit(0)

    def _accept(self) -> None:
        connection, _ = self._listening.accept()
        length, streams, _, _ = socket.recv_fds(connection, 4, 3)
        with connection.makefile("rb") as file:
            command = json.loads(file.read(int.from_bytes(length, "big")))
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._listening.close()
            connection.close()
            self._become(command, streams)
        for stream in streams:
            os.close(stream)
        process = os.pidfd_open(pid)
        self._running[process] = connection, pid
        self._selector.register(process, selectors.EVENT_READ, lambda: self._ended(process))
        # who asked says no more, and is gone when there is something to read
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._deserted(process))
        connection.sendall(pid.to_bytes(4, "big"))

    def _ended(self, process: int) -> None:
        connection, pid = self._running.pop(process)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(4, "big", signed=True))
        self._selector.unregister(process)
        self._selector.unregister(connection)
        connection.close()
        os.close(process)

    def _deserted(self, process: int) -> None:
        if process in self._running:
            os.kill(self._running[process][1], signal.SIGKILL)

    def _become(self, command: dict, streams: list[int]) -> None:
        """In the fork: do what ``python WORDS`` does, and end."""
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        words, environment = command["words"], command["environment"]
        os.chdir(command["cwd"])
        changed = {
            name for name in {*environment, *self._before}
            if environment.get(name) not in (self._before.get(name), os.environ.get(name))
        }  # fmt: skip
        set_by_libraries = {name: value for name, value in os.environ.items() if value != self._before.get(name)}
        os.environ.clear()
        os.environ.update({**environment, **set_by_libraries})
        path = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *self._path]
        kind, ignoring, rest = _understood(words)
        first = {"-m": str(Path.cwd()), "-c": "", "": str(Path(rest[0] if rest else "").resolve().parent)}.get(kind, "")
        if kind is None or changed - HARMLESS or _other_copy([first, *path]):
            os.execve(self._true, [self._true, *words], environment)
        if "OMP_NUM_THREADS" in changed and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(int(environment["OMP_NUM_THREADS"]))
        if ignoring or environment.get("PYTHONWARNINGS") == "ignore":
            warnings.simplefilter("ignore")
        _open_streams()
        sys.path[:] = [first, *path]
        status = _executed(kind, rest)
        # what the interpreter does at its end, without the seconds that taking down the libraries costs
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _understood(words: list[str]) -> tuple[str | None, bool, list[str]]:
    """Whether words run a module (-m), a text (-c), a file ("") or what is not known (None), whether they ignore
    warnings, and what comes after."""
    words, ignoring = list(words), False
    # what is unbuffered (-u) only comes earlier
    while words[:2] == ["-W", "ignore"] or words[:1] in (["-B"], ["-u"]):
        ignoring = ignoring or words[0] == "-W"
        sys.dont_write_bytecode = sys.dont_write_bytecode or words[0] == "-B"
        del words[: 2 if words[0] == "-W" else 1]
    if words[:1] in (["-m"], ["-c"]):
        return words[0], ignoring, words[1:]
    return ("" if words and not words[0].startswith("-") else None), ignoring, words


def _other_copy(path: list[str]) -> bool:
    """Whether another copy of the package would be loaded from this path than the one that was."""
    loaded = sys.modules.get(OWN_PACKAGE)
    found = loaded and PathFinder.find_spec(OWN_PACKAGE, path)
    return bool(found) and not Path(found.origin).samefile(loaded.__file__)


def _open_streams() -> None:
    """Standard streams as the interpreter opens them."""
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))
    for name, number, errors, lines in (("stdout", 1, "strict", os.isatty(1)), ("stderr", 2, "backslashreplace", True)):
        written = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        stream = io.TextIOWrapper(written, errors=errors, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _executed(kind: str, rest: list[str]) -> int:
    """Run it as the interpreter runs what is ``__main__``, and return the exit status."""
    try:
        sys.argv = list(rest)
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv[0] = "-c"
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(rest[0], run_name="__main__")
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return (stop.code or 0) & 0xFF
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


if __name__ == "__main__":
    Server(sys.argv[1], sys.argv[2], sys.argv[3:]).serve()
