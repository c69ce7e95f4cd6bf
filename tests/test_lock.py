import errno
import os
import time

import filelock
import pytest

from lightmuseg import lock
from lightmuseg.lock import Lease, locked

fcntl = pytest.importorskip("fcntl")


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request, monkeypatch):
    """A file system without locks; a lease there is old after 0.7 s."""

    def flock(descriptor, how):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "LEASE_S", 0.7)


def left_by(path, words):
    path.write_text(words)


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
        Lease(tmp_path / "lock.held").taken()
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "lock.held").exists()
    with locked(tmp_path / "lock", 0) as is_held:
        assert is_held()


def test_a_lease_of_a_dead_process_elsewhere_is_taken_when_it_was_seen_untouched(tmp_path, no_locks):
    left_by(tmp_path / "lock.held", "abcdef 1 elsewhere 0123")
    # whatever the other machine's clock says
    os.utime(tmp_path / "lock.held", (0, 0))
    with pytest.raises(filelock.Timeout), locked(tmp_path / "lock", 0):
        pytest.fail("was taken before")
    with locked(tmp_path / "lock", 0, wait_for_dead=True) as is_held:
        assert is_held()


def test_who_slept_too_long_knows_that_the_lease_is_lost(tmp_path, no_locks):
    with locked(tmp_path / "lock", 0) as is_held:
        left_by(tmp_path / "lock.held", "abcdef 1 elsewhere 0123")
        assert not is_held()
    # and leaves the other's alone
    assert (tmp_path / "lock.held").read_text() == "abcdef 1 elsewhere 0123"


def test_of_many_that_wait_for_a_dead_one_only_one_takes_over(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "LEASE_S", 0.8)
    left_by(tmp_path / "lock.held", "abcdef 1 elsewhere 0123")
    children = []
    for _ in range(6):
        child = os.fork()
        if not child:
            end, taken = time.monotonic() + 2.5, False
            lease = Lease(tmp_path / "lock.held")
            while not taken and time.monotonic() < end:
                taken = lease.taken()
                time.sleep(0.02)
            # it lives until all have tried
            time.sleep(max(0.0, end + 1 - time.monotonic()))
            os._exit(taken)
        children.append(child)
    assert sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children) == [0] * 5 + [1]


def test_another_fault_of_a_lock_is_no_missing_lock(tmp_path, monkeypatch):
    def flock(descriptor, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", 0):
        pass


def test_a_lease_that_cannot_be_read_for_a_moment_is_touched_again(tmp_path, no_locks, monkeypatch):
    with locked(tmp_path / "lock", 0) as is_held:
        with monkeypatch.context() as patch:
            patch.setattr(lock, "_read", lambda path: "")
            time.sleep(0.4)
        os.utime(tmp_path / "lock.held", (0, 0))
        time.sleep(0.4)
        assert is_held()
        assert (tmp_path / "lock.held").stat().st_mtime > 0
