import errno
import multiprocessing
import os
import signal
import time

import pytest

from lightmuseg import lock
from lightmuseg.errors import InputError
from lightmuseg.slides.unfinished import MAX_DEATHS, Busy, Unfinished


def die(folder, rows):
    """Begin, finish ``rows`` rows, and die."""
    unfinished = Unfinished(folder, True)
    with unfinished.claimed(), unfinished.counted("a slide"):
        (unfinished.path / "rows").mkdir(exist_ok=True)
        before = len(list((unfinished.path / "rows").iterdir()))
        for number in range(before, before + rows):
            (unfinished.path / "rows" / f"{number}.npz").touch()
        os.kill(os.getpid(), signal.SIGKILL)


def killed(folder, rows=0):
    process = multiprocessing.get_context("fork").Process(target=die, args=(folder, rows))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_slide_at_which_processes_die_is_given_up_once(tmp_path):
    unfinished = Unfinished(tmp_path / "a", True)
    for _ in range(MAX_DEATHS):
        killed(tmp_path / "a")
    refused = pytest.raises(InputError, match=f"a slide: {MAX_DEATHS} processes died")
    with refused, unfinished.claimed(), unfinished.counted("a slide"):
        pytest.fail("was started again")
    # who asks for it again gets it tried again
    with unfinished.claimed(), unfinished.counted("a slide"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_deaths_of_processes_that_got_further_do_not_count(tmp_path):
    for _ in range(MAX_DEATHS + 2):
        killed(tmp_path / "a", rows=1)
    with Unfinished(tmp_path / "a", True).claimed(), Unfinished(tmp_path / "a", True).counted("a slide"):
        pass


def test_ends_in_order_do_not_count(tmp_path):
    unfinished = Unfinished(tmp_path / "a", True)
    for _ in range(2 * MAX_DEATHS):
        killed(tmp_path / "a")
        with pytest.raises(ZeroDivisionError), unfinished.claimed(), unfinished.counted("a slide"):
            raise ZeroDivisionError


def hold_often(folder, marks, number):
    unfinished = Unfinished(folder, True)
    for turn in range(150):
        try:
            with unfinished.claimed():
                descriptor = os.open(marks / "inside", os.O_CREAT | os.O_EXCL)
                (unfinished.path / "options.json").write_text(str(number))
                assert (unfinished.path / "options.json").read_text() == str(number)
                os.close(descriptor)
                (marks / "inside").unlink()
                (marks / f"{number} {turn}").touch()
        except Busy:
            continue


def test_many_processes_that_claim_and_let_go_are_never_two_at_once(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=hold_often, args=(tmp_path / "a", marks, n)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 6
    assert len(list(marks.iterdir())) > 50
    assert not (tmp_path / ".a.partial").exists()


@pytest.fixture
def no_locks(monkeypatch):
    """A file system without locks."""
    fcntl = pytest.importorskip("fcntl")

    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(lock, "LEASE_S", 0.6)


def lease_elsewhere(token):
    return f"filelock/2\npid=1\nhost=elsewhere\nmode=lease\ntoken={token}\nduration={lock.LEASE_S}\n"


def test_without_locks_a_slide_is_held_by_one_process_and_nothing_is_left(tmp_path, no_locks):
    with Unfinished(tmp_path / "a", True).claimed():
        with pytest.raises(Busy), Unfinished(tmp_path / "a", True).claimed():
            pytest.fail("two are at it")
        # nor does one wait whom somebody watches, since the holder is known to live
        with pytest.raises(Busy), Unfinished(tmp_path / "a", False).claimed():
            pytest.fail("two are at it")
    assert list(tmp_path.iterdir()) == []


def test_without_locks_a_slide_of_a_process_that_died_elsewhere_is_free_again(tmp_path, no_locks):
    killed(tmp_path / "a", rows=1)
    held = tmp_path / ".a.partial" / "lock.held"
    held.write_text(lease_elsewhere(123))
    with pytest.raises(Busy), Unfinished(tmp_path / "a", True).claimed():
        pytest.fail("was taken at once")
    with Unfinished(tmp_path / "a", False).claimed():
        pass
    # a cohort, which looks again and again
    held.write_text(lease_elsewhere(4567))
    for _ in range(100):
        try:
            with Unfinished(tmp_path / "a", True).claimed():
                break
        except Busy:
            time.sleep(0.05)
    else:
        pytest.fail("is never free")


def test_who_lost_a_slide_shows_no_results_of_it(tmp_path, no_locks):
    unfinished = Unfinished(tmp_path / "a", True)
    with unfinished.claimed():
        unfinished.require_held()
        (unfinished.path / "lock.held").write_text(lease_elsewhere(123))
        with pytest.raises(Busy, match="another process took this slide"):
            unfinished.require_held()
