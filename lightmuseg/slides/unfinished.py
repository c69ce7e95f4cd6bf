"""The hidden folder of a run that is not finished: whose it is, what it rests on, and who died in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

from lightmuseg.errors import InputError
from lightmuseg.files import make_folder, require_space
from lightmuseg.lock import locked
from lightmuseg.text_files import write_json

LOCK, IDENTITY, ATTEMPTS = "lock", "options.json", "attempts.json"
# what is recorded of a model but follows from the hash of its weights
FOLLOWING = {"name", "limits"}
NEEDED_BYTES = 10_000_000
# processes that may die at a slide, one after the other and none getting further, before it is given up
MAX_DEATHS = 3


class Busy(InputError):
    """Another process is at the slide."""


class Unfinished:
    """What is kept of a slide until its folder of results is there: rows of the map, and how to go on from them.

    Args:
        folder: of the results.
        unattended: one of very many slides; see :class:`.SlideJob`.

    Attributes:
        replaces: whether results that are there wait for these; the rows then stay until these are shown.
    """

    def __init__(self, folder: Path, unattended: bool) -> None:
        self.path = folder.with_name(f".{folder.name}.partial")
        self._folder, self._unattended = folder, unattended
        self._is_held: Callable[[], bool] = lambda: False
        self.replaces = False

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder for this process alone; it stays where there are rows to go on from.

        The kernel gives the lock back when a process dies; see :func:`.locked` for file systems without locks.

        Raises:
            Busy: where another process holds it.
        """
        held = ExitStack()
        try:
            make_folder(self.path)
            self._is_held = held.enter_context(locked(self.path / LOCK, 0, wait_for_dead=not self._unattended))
        except (filelock.Timeout, FileNotFoundError, FileExistsError) as error:
            if self.path.is_file():
                raise
            # there, and then not, where the other process ends at this moment and takes the folder along
            raise Busy(f"{self.path}: another process is at this slide; wait for it.") from error
        with held:
            try:
                require_space(self.path, NEEDED_BYTES)
                yield
            finally:
                ended = self._folder.exists() and not self.replaces
                if self._is_held() and (ended or not self._rows()):
                    self._remove()

    @contextmanager
    def counted(self, slide: Path) -> Iterator[None]:
        """Count the processes that began here and died, by a file that one which ends in order takes away.

        Raises:
            InputError: after too many.
        """
        if not self._unattended:
            yield
            return
        path, rows = self.path / ATTEMPTS, self._rows()
        deaths, rows_then = _read_attempts(path)
        if rows > rows_then:
            deaths = 0
        try:
            if deaths >= MAX_DEATHS:
                raise InputError(
                    f"{slide}: {deaths} processes died at it; see whether memory suffices, or leave it out."
                )
            write_json(path, [deaths + 1, rows])
            yield
        finally:
            path.unlink(missing_ok=True)

    def require_held(self) -> None:
        """Refuse to go on where the folder is this process's no more.

        Raises:
            Busy: after a process slept so long that another one took it for dead.
        """
        if not self._is_held():
            raise Busy(f"{self.path}: another process took this slide, since this one was not heard of; wait for it.")

    def begin(self, identity: dict[str, Any], resume: bool) -> list[str]:
        """Note what the run rests on, or refuse to go on from rows that rest on something else.

        Args:
            identity: plain values; ``slide`` is what tells the slide from others.
            resume: go on from the rows that are there.

        Returns:
            What is to be said of rows that were left behind.

        Raises:
            InputError: for rows of other options or another slide, or where nobody said to go on.
        """
        notes = []
        path = self.path / IDENTITY
        if self._rows():
            if not resume:
                raise InputError(f"{self.path}: holds an interrupted run; go on with it by --resume, or delete it.")
            try:
                _refuse_others(path, identity)
                return []
            except InputError as error:
                if not self._unattended:
                    raise
                notes.append(f"It was started again: {error}")
                self.forget_rows()
        write_json(path, identity)
        return notes

    def forget_rows(self) -> None:
        """Remove the rows, which nobody may go on from."""
        shutil.rmtree(self.path / "rows")

    def _rows(self) -> int:
        return len(list((self.path / "rows").glob("*.npz")))

    def _remove(self) -> None:
        # the lock last: until it is gone nobody else can be in there
        with suppress(FileNotFoundError):
            for path in self.path.iterdir():
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif not path.name.startswith(LOCK):
                    path.unlink(missing_ok=True)
        for path in self.path.glob(f"{LOCK}*"):
            path.unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()


def _read_attempts(path: Path) -> tuple[int, int]:
    """Processes that died, and the rows they had; nothing of a file that is not there or cut short."""
    try:
        deaths, rows = json.loads(path.read_text(encoding="utf-8"))
        return int(deaths), int(rows)
    except (FileNotFoundError, ValueError, TypeError):
        return 0, 0


def _refuse_others(path: Path, identity: dict[str, Any]) -> None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{path}: is damaged; delete {path.parent} and begin again.") from error
    if kept.get("slide") not in (None, identity.get("slide")):
        raise InputError(
            f"{path.parent}: was started with another slide, which a file of the same name has replaced; delete it."
        )
    refuse_others(path.parent, kept, identity)


def refuse_others(place: Path, kept: dict[str, Any], identity: dict[str, Any]) -> None:
    """Refuse to go on with what was started by other options.

    Args:
        place: what a user would have to delete.
        kept: options that it was started by.
        identity: those of now.

    Raises:
        InputError: that names the first difference.
    """
    now = json.loads(json.dumps(identity))
    names = (kept.keys() | now.keys()) - FOLLOWING
    different = sorted(name for name in names if kept.get(name) != now.get(name))
    if different:
        name = different[0]
        raise InputError(
            f"{place}: was started with {name} {kept.get(name)!r}, not {now.get(name)!r}; "
            "give the same options, or delete it."
        )
