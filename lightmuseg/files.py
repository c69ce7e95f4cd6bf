"""Files that are seen whole or not at all, also after a power failure."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from lightmuseg.errors import InputError

# Folders that some file systems cannot sync; those keep the order of names themselves.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
_TEMPORARY = re.compile(r"\.(\d+)-([0-9a-f]{6})[0-9a-f]{8}\.partial\..+", re.DOTALL)
# A file of another machine, whose processes cannot be asked for, is left over when nobody wrote to it for so long.
LEFT_OVER_S = 3 * 86_400
# where a kill may have left temporary files, once in a process
_tidied: set[str] = set()
_reading = threading.Lock()
# False too where a text is too long for a path, or what it names cannot be looked at
is_file, is_folder = os.path.isfile, os.path.isdir


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk.

    Raises:
        OSError: where they cannot be written.
    """
    # Windows flushes what is open for writing only
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, where its file system can be asked for that."""
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, is on the disk.

    Raises:
        OSError: where something cannot be written.
    """
    if not path.is_dir():
        sync_file(path)
        return
    folders = [(Path(folder), files) for folder, _, files in os.walk(path)]
    # side by side, so that the disk takes many at once
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sync_file, [folder / name for folder, files in folders for name in files]))
    for folder, _ in folders:
        sync_folder(folder)


def show(temporary: Path, path: Path) -> None:
    """Rename a file, or a folder with all that is in it, once its bytes are on the disk; then sync the new name.

    Every result becomes visible by this function, so a power failure leaves the former one or the whole new one.

    Args:
        temporary: in the same file system.
        path: that it gets; a file that is there is replaced.

    Raises:
        OSError: where something cannot be written or renamed.
    """
    sync_tree(temporary)
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_whole(path: str | Path, write: Callable[[Path], Any]) -> None:
    """Let ``write(temporary)`` make a file beside ``path``, then :func:`show` it: ``path`` is never there in part.

    The temporary name ends like ``path`` does, for writers that choose the format by it.
    """
    path = Path(path)
    make_folder(path.parent)
    remove_left_over(path.parent)
    temporary = _temporary(path)
    try:
        write(temporary)
        show(temporary, path)
    except OSError as error:
        if error.strerror and error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    # containers on several machines may all be process 1
    return path.with_name(f".{os.getpid()}-{machine_id()}{uuid.uuid4().hex[:8]}.partial.{path.name}")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, whose names are then on the disk."""
    if not path.is_dir():
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)


def remove_left_over(folder: Path) -> None:
    """Remove what :func:`write_whole` and :func:`whole_folder` left in a folder where they died; once in a process.

    Those of processes that live are left, and those of other machines for LEFT_OVER_S.
    """
    if str(folder) in _tidied:
        return
    _tidied.add(str(folder))
    # another process tidies too, or nothing may be removed here: they only take room
    with suppress(OSError):
        for entry in os.scandir(folder):
            found = _TEMPORARY.fullmatch(entry.name)
            if not found:
                continue
            is_own_machine, age_s = found[2] == machine_id(), time.time() - entry.stat(follow_symlinks=False).st_mtime
            if _is_gone(int(found[1])) if is_own_machine else age_s > LEFT_OVER_S:
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else Path(entry).unlink()


def _is_gone(process: int) -> bool:
    # on Windows the signal to ask by would end the process
    if sys.platform != "win32":
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
    return False


@cache
def machine_id() -> str:
    """Six hexadecimal digits of the machine or container whose process numbers are ours."""
    words = [socket.gethostname()]
    with suppress(OSError):
        # two machines may have one name
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        words.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:6]


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """``count`` bytes of an open file from ``offset``, or fewer at its end; threads may ask at once."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    # Windows has one position a file
    with _reading:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, count)


@contextmanager
def whole_folder(folder: Path, needed_bytes: int) -> Iterator[Path]:
    """A folder beside ``folder`` to write into, which becomes ``folder`` when the block ends without an error.

    Of two processes that write the same at once each has one of its own, and the first to end is the one that counts.

    Raises:
        InputError: where it cannot be made, ``needed_bytes`` do not fit, or another process was faster.
    """
    remove_left_over(folder.parent)
    partial = _temporary(folder)
    try:
        require_space(partial, needed_bytes)
        yield partial
        try:
            show(partial, folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise InputError(f"{folder}: another process wrote it meanwhile; see whether it is right.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_space(folder: str | Path, needed_bytes: int) -> None:
    """Make ``folder`` and prove that ``needed_bytes`` can be written into it.

    Raises:
        InputError: where it cannot be made or written, or its disk is too full.
    """
    folder = Path(folder)
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as probe:
            _reserve(probe, needed_bytes)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write {needed_bytes / 1e6:.0f} MB there ({error.strerror}); "
            "free some space or choose another output folder."
        ) from error


def _reserve(file: IO[bytes], needed_bytes: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, needed_bytes)
        return
    # elsewhere than on Linux only real bytes prove that there is room
    block = bytes(1 << 20)
    for start in range(0, needed_bytes, len(block)):
        file.write(block[: needed_bytes - start])
    file.flush()
