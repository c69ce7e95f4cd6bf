import errno
import os
import time

import filelock
import pytest

from lightmuseg import lock
from lightmuseg.lock import locked

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request, monkeypatch):
    """A file system without locks; a lease there is old after 0.7 s."""

    def flock(descriptor, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "LEASE_S", 0.7)


def left_elsewhere(path):
    """A lease of a process of another machine, which replaces one that is there."""
    words = f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken=0123\nduration={lock.LEASE_S}\n"
    path.with_suffix(".new").write_text(words)
    path.with_suffix(".new").replace(path)
    return words


def test_without_locks_one_process_at_a_time_holds_a_lease(tmp_path, no_locks):
    with locked(tmp_path / "lock", 0) as is_held:
        assert is_held()
        time.sleep(1.2)
        # it is touched, so that it does not grow old
        with pytest.raises(filelock.Timeout), locked(tmp_path / "lock", 0, wait_for_dead=True):
            pytest.fail("two are in it")
        assert is_held()
    with locked(tmp_path / "lock", 0):
        pass
    assert [path.name for path in tmp_path.iterdir() if lock.ENDING in path.name] == []


def test_a_lease_of_a_dead_process_of_this_machine_is_taken_at_once(tmp_path, no_locks):
    child = os.fork()
    if not child:
        lease = locked(tmp_path / "lock", 0)
        lease.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "lock.held").exists()
    with locked(tmp_path / "lock", 0) as is_held:
        assert is_held()


def test_a_lease_of_a_dead_process_elsewhere_is_taken_when_it_was_seen_untouched(tmp_path, no_locks):
    left_elsewhere(tmp_path / "lock.held")
    # whatever the other machine's clock says
    os.utime(tmp_path / "lock.held", (0, 0))
    with pytest.raises(filelock.Timeout), locked(tmp_path / "lock", 0):
        pytest.fail("was taken before")
    with locked(tmp_path / "lock", 0, wait_for_dead=True) as is_held:
        assert is_held()


def test_who_slept_too_long_knows_that_the_lease_is_lost(tmp_path, no_locks):
    with locked(tmp_path / "lock", 0) as is_held:
        words = left_elsewhere(tmp_path / "lock.held")
        assert not is_held()
    # and leaves the other's alone
    assert (tmp_path / "lock.held").read_text() == words


def test_of_many_that_wait_for_a_dead_one_only_one_takes_over(tmp_path, no_locks):
    left_elsewhere(tmp_path / "lock.held")
    children = []
    for _ in range(6):
        child = os.fork()
        if not child:
            end, taken = time.monotonic() + 2.5, False
            try:
                with locked(tmp_path / "lock", 2.5):
                    taken = True
                    # it lives until all have tried
                    time.sleep(max(0.0, end + 1 - time.monotonic()))
            except filelock.Timeout:
                pass
            os._exit(taken)
        children.append(child)
    assert sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0] * 5 + [1]


def test_another_fault_of_a_lock_is_no_missing_lock(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", 0):
        pass


def test_a_lease_that_cannot_be_reached_for_a_moment_is_touched_again(tmp_path, no_locks, monkeypatch):
    def fail(*names, **options):
        raise OSError(errno.EIO, "Input/output error")

    with locked(tmp_path / "lock", 0) as is_held:
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", fail)
            patch.setattr(os, "lstat", fail)
            time.sleep(0.3)
        os.utime(tmp_path / "lock.held", (0, 0))
        time.sleep(0.4)
        assert is_held()
        assert (tmp_path / "lock.held").stat().st_mtime > 0
