"""One process at a thing, on file systems with locks and without."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import filelock

logger = logging.getLogger(__name__)

# what file systems say that have no locks: NFS without its lock service, Lustre without -o flock, some FUSE
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
# of a file that a process holds there by touching it; another takes it when it has lain untouched for so many seconds
ENDING, LEASE_S = ".held", 120.0
# by path, those that others held when this process looked last; each knows since when its file is untouched
_watched: dict[Path, filelock.SoftFileLease] = {}


@contextmanager
def locked(path: Path, timeout: float, wait_for_dead: bool = False) -> Iterator[Callable[[], bool]]:
    """Hold the lock of a file, which need not be there.

    The kernel gives it back when a process dies. On a file system without locks a lease is held beside it: a file that
    its holder touches again and again. Of a process that died on this machine the next one takes it at once; of one
    that died elsewhere, when it has seen the file untouched for LEASE_S by its own clock.

    Args:
        path: of the file.
        timeout: s to wait for another process.
        wait_for_dead: without locks wait at least as long as it takes to know that a process elsewhere is dead.

    Yields:
        A function that says whether it is still held: a process that slept may have lost a lease.

    Raises:
        filelock.Timeout: where another process holds it.
        OSError: where the file cannot be made.
    """
    lock = filelock.FileLock(path, timeout=timeout, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, filelock.Timeout) or error.errno not in NO_LOCKS:
            raise
    else:
        try:
            yield lambda: True
        finally:
            lock.release()
        return
    lease = _acquired(path.with_name(path.name + ENDING), timeout, wait_for_dead)
    token = lease.token
    try:
        yield lambda: lease.owner is not None and lease.owner.token == token
    finally:
        lease.release()


def _acquired(path: Path, timeout: float, wait_for_dead: bool) -> filelock.SoftFileLease:
    lease = _watched.pop(path, None) or filelock.SoftFileLease(
        path, lease_duration=LEASE_S, heartbeat_interval=LEASE_S / 6, thread_local=False
    )
    try:
        # the first look may find that its holder is dead, the second takes it
        lease.acquire(max(timeout, 0.1))
    except filelock.Timeout:
        owner = lease.owner
        if not wait_for_dead or (owner is not None and owner.hostname == _host()):
            _watched[path] = lease
            raise
        logger.warning("%s: waiting, to see whether the process that holds it is alive", path)
        lease.acquire(1.2 * LEASE_S, poll_interval=LEASE_S / 120)
    return lease


@cache
def _host() -> str:
    """This machine's name in a lease; filelock makes it of the host's name and the container."""
    with tempfile.TemporaryDirectory() as folder, filelock.SoftFileLease(Path(folder, "own")) as lease:
        return lease.owner.hostname
