"""One process at a thing, on file systems with locks and without."""

from __future__ import annotations

import errno
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from lightmuseg.files import is_gone, processes_here

logger = logging.getLogger(__name__)

# what file systems say that have no locks: NFS without its lock service, Lustre without -o flock, some FUSE
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
# of a file that a process holds there by touching it; another takes it when it has lain untouched for so many seconds
ENDING, LEASE_S = ".held", 120.0
# what this process has seen of the files that others hold: their state, and since when it is the same
_seen: dict[str, tuple[tuple[str, int], float]] = {}


@contextmanager
def locked(path: Path, timeout: float, wait_for_dead: bool = False) -> Iterator[Callable[[], bool]]:
    """Hold the lock of a file, which need not be there.

    The kernel gives it back when a process dies. On a file system without locks a :class:`Lease` is held beside it.

    Args:
        path: of the file.
        timeout: s to wait for another process.
        wait_for_dead: without locks wait at least as long as it takes to know that the other process is dead.

    Yields:
        A function that says whether it is still held: a process that slept may have lost a lease.

    Raises:
        filelock.Timeout: where another process holds it.
        OSError: where the file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)
    if _acquired(lock):
        try:
            yield lambda: True
        finally:
            lock.release()
        return
    lease = Lease(path.with_name(path.name + ENDING))
    _take(lease, timeout, wait_for_dead)
    try:
        yield lease.is_held
    finally:
        lease.give_back()


def _acquired(lock: filelock.BaseFileLock) -> bool:
    """Take a lock of the kernel's; False where the file system has none."""
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout) or error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _take(lease: Lease, timeout: float, wait_for_dead: bool) -> None:
    begun = time.monotonic()
    while not lease.taken():
        if wait_for_dead and lease.is_elsewhere():
            logger.warning("%s: is waited for, to see whether the process that holds it lives", lease.path)
            timeout, wait_for_dead = max(timeout, 1.2 * LEASE_S), False
        if time.monotonic() - begun >= timeout:
            raise filelock.Timeout(str(lease.path))
        time.sleep(min(1.0, LEASE_S / 10))


class Lease:
    """A file that its holder touches again and again, for file systems without locks.

    Of a process that died on this machine the next one takes it at once; of one that died elsewhere, when this process
    has seen it untouched for LEASE_S by its own clock.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._own = f"{processes_here()} {os.getpid()} {socket.gethostname()} {uuid.uuid4().hex}"
        self._end = threading.Event()

    def taken(self) -> bool:
        """Take it, if nobody who lives holds it."""
        try:
            descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            if not self._is_dead() or not self._taken_over():
                return False
        else:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(self._own)
        _seen.pop(str(self.path), None)
        threading.Thread(target=self._touch, name=f"lease {self.path.name}", daemon=True).start()
        return True

    def is_held(self) -> bool:
        """Whether the file still says so."""
        return not self._end.is_set() and _read(self.path) == self._own

    def is_elsewhere(self) -> bool:
        """Whether a process holds it that cannot be asked for here."""
        return not _read(self.path).startswith(processes_here())

    def give_back(self) -> None:
        """Let the next process have it."""
        held = self.is_held()
        self._end.set()
        if held:
            self.path.unlink(missing_ok=True)

    def _touch(self) -> None:
        while not self._end.wait(LEASE_S / 6):
            said = _read(self.path)
            if said not in ("", self._own):
                self._end.set()
                return
            if not said:
                # that it cannot be read now does not mean that it is lost
                continue
            with suppress(OSError):
                os.utime(self.path)

    def _is_dead(self) -> bool:
        """Whether who holds it does not live."""
        words = _read(self.path).split()
        if len(words) == 4 and words[0] == processes_here() and words[1].isdecimal() and is_gone(int(words[1])):
            return True
        return _untouched_s(self.path) > LEASE_S

    def _taken_over(self) -> bool:
        """Replace what a dead process left, unless another process does; one at a time may look and replace."""
        gate = self.path.with_name(f"{self.path.name}.taken")
        try:
            os.close(os.open(gate, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            if _untouched_s(gate) > LEASE_S:
                # of a process that died between these lines
                gate.unlink(missing_ok=True)
            return False
        temporary = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            if not self._is_dead():
                return False
            temporary.write_text(self._own, encoding="utf-8")
            os.replace(temporary, self.path)
            return True
        finally:
            temporary.unlink(missing_ok=True)
            gate.unlink(missing_ok=True)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _untouched_s(path: Path) -> float:
    """Seconds for which this process has seen a file untouched; its own clock counts, whatever the file's is."""
    try:
        state = _read(path), path.stat().st_mtime_ns
    except OSError:
        return 0.0
    now = time.monotonic()
    before, since = _seen.get(str(path), (None, now))
    _seen[str(path)] = state, now if before != state else since
    return now - _seen[str(path)][1]
