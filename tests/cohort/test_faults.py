"""Workers and the driver are killed and the disk is full, and the results are those of a run without faults."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from lightmuseg.slides.unfinished import ATTEMPTS, MAX_DEATHS, NEEDED_BYTES

pytest.importorskip("ray")
pytestmark = pytest.mark.cohort
CORRUPT = 5
SIDES = (350, 550)
LIMIT_S = 900


def ages(title=""):
    """Parents of the processes of this machine whose title holds a word, by their number."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if title in (folder / "cmdline").read_text().replace("\0", " "):
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def descendants(process, title=""):
    """Numbers of the processes below one."""
    parents, inner, grown = ages(), {process}, True
    while grown:
        more = {child for child, parent in parents.items() if parent in inner} - inner
        inner |= more
        grown = bool(more)
    return sorted((inner - {process}) & set(ages(title)))


class Killer(threading.Thread):
    """Kills a worker of a driver each time that some more slides, ``most`` at most, are done, until the driver ends.

    It kills none while a slide is tried again: the driver's end may be the second death there, and after the third the
    slide is given up, as it should be.
    """

    def __init__(self, driver, folder, seed, most):
        super().__init__(daemon=True)
        self.most = most
        self.driver, self.folder, self.moments, self.kills = driver, folder, random.Random(seed), 0
        self.start()

    def run(self):
        due = self._later()
        while self.driver.poll() is None:
            time.sleep(0.05)
            if done(self.folder) < due:
                continue
            # at any point of a slide; one of the workers may still load its libraries
            time.sleep(self.moments.uniform(0, 0.3))
            workers_there = ages("ray::work")
            # what a worker starts is called as it is for a moment
            workers = [
                one for one in descendants(self.driver.pid, "ray::work") if workers_there.get(one) not in workers_there
            ]
            if workers and most_deaths(self.folder) < MAX_DEATHS - 1:
                try:
                    os.kill(self.moments.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                self.kills += 1
                due = self._later()

    def _later(self):
        return done(self.folder) + self.moments.randint(1 + self.most // 8, self.most)


def table(folder):
    with open(folder / "cohort.csv", newline="", encoding="utf-8") as file:
        return {row["results"]: row for row in csv.DictReader(file)}


def done(folder):
    return len(list(folder.glob("patient*/HE*/run.json")))


def most_deaths(folder):
    """Processes that died or are at the slide with the most of them."""
    most = 0
    for path in folder.glob(f"patient*/.*/{ATTEMPTS}"):
        # it goes when the slide ends
        with contextlib.suppress(FileNotFoundError):
            most = max(most, json.loads(path.read_text())[0])
    return most


def mounted(disk, *options):
    return subprocess.run(["mount", *options, "tmpfs", disk], capture_output=True).returncode == 0


@pytest.mark.timeout(3 * LIMIT_S)
@pytest.mark.parametrize("slides", [20, pytest.param(200, marks=pytest.mark.nightly)])
def test_killed_workers_a_killed_driver_and_a_full_disk_change_no_byte(
    slides, real_slides, command, contents, tmp_path
):
    paths = real_slides(tmp_path / "slides", slides, SIDES)
    corrupt = paths[slides // CORRUPT - 1 :: slides // CORRUPT]
    most = max(3, slides // 13)
    for number, path in enumerate(corrupt):
        path.write_bytes(path.read_bytes()[: 3000 * number])
    said = tmp_path / "said.txt"
    process = command(tmp_path / "slides", "--output", tmp_path / "once")
    assert process.wait(LIMIT_S) == 1, said.read_text()[-2000:]
    expected = contents(tmp_path / "once")
    assert done(tmp_path / "once") == slides - CORRUPT
    size = sum(path.stat().st_blocks * 512 for path in (tmp_path / "once").rglob("*"))

    disk = tmp_path / "disk"
    disk.mkdir()
    # all fits, beside what two workers see to have free
    roomy = f"size={size * 3 + 25_000_000}"
    if not mounted(disk, "-t", "tmpfs", "-o", roomy):
        pytest.skip("cannot mount a disk here: not root")
    try:
        words = (tmp_path / "slides", "--output", disk / "out", "--engine", "ray", "--slides-at-once", "2")
        # slow enough that slides are left when the driver is killed, whose workers go on for a moment
        first = command(*words, runtime="Green(0.5)")
        killers = [Killer(first, disk / "out", 1, most)]
        until = time.monotonic() + LIMIT_S
        while done(disk / "out") < slides // 5:
            assert first.poll() is None, said.read_text()[-2000:]
            assert time.monotonic() < until
            time.sleep(0.2)
        family = descendants(first.pid)
        first.kill()
        first.wait()
        while set(family) & set(ages()):
            # Ray ends with the process that began it
            assert time.monotonic() < until
            time.sleep(0.2)

        # a fourth more fits
        used = os.statvfs(disk)
        used = (used.f_blocks - used.f_bfree) * used.f_bsize
        assert mounted(disk, "-o", f"remount,size={used + size // 4 + NEEDED_BYTES}")
        second = command(*words)
        killers.append(Killer(second, disk / "out", 2, most))
        assert second.wait(LIMIT_S) == 1
        lines = [line for line in said.read_text().splitlines() if line.startswith("lightmuseg: error: ")]
        # a worker says so at its slide, whatever failed there, or at its start in the place of a killed one
        assert "No space left on device" in lines[-1], lines
        assert "free some space" in lines[-1], lines
        assert "Traceback" not in said.read_text()
        assert slides // 5 <= done(disk / "out") < slides - CORRUPT
        failures = [path.read_text() for path in (disk / "out" / ".cohort" / "failed").glob("[!.]*.json")]
        assert all(any(str(path) in text for path in corrupt) for text in failures)

        assert mounted(disk, "-o", f"remount,{roomy}")
        third = command(*words)
        killers.append(Killer(third, disk / "out", 3, most))
        assert third.wait(LIMIT_S) == 1
        rows, rows_once = table(disk / "out"), table(tmp_path / "once")
        assert list(rows) == list(rows_once)
        assert len(rows) == slides
        failed = {name: row["message"] for name, row in rows.items() if row["status"] == "failed"}
        assert failed == {name: row["message"] for name, row in rows_once.items() if row["status"] == "failed"}
        assert f"{CORRUPT} of {slides} slides failed" in said.read_text()
        assert sum(killer.kills for killer in killers) >= min(5, slides // 8)
        assert contents(disk / "out") == expected
        assert sorted(rows[name]["slide"] for name in failed) == sorted(map(str, corrupt))
        assert all(rows[name]["slide"] in message for name, message in failed.items())
        assert list((disk / "out").rglob(".*.partial")) == []
        # and again there is nothing to do but what fails
        moments = {path: path.stat().st_mtime_ns for path in (disk / "out").rglob("HE*/*")}
        assert command(tmp_path / "slides", "--output", disk / "out").wait(LIMIT_S) == 1
        assert {path: path.stat().st_mtime_ns for path in (disk / "out").rglob("HE*/*")} == moments
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_slide_at_which_every_worker_dies_is_given_up_and_the_others_go_on(engine, make_slide, command, tmp_path):
    for number in range(4):
        make_slide(f"{number}.tif", number)
    make_slide("poison.tif", shade=66)
    words = (tmp_path / "slides", "--output", tmp_path / "out", "--engine", engine, "--slides-at-once", "2")
    process = command(*words, runtime="Poisoned()")
    assert process.wait(LIMIT_S) == 1
    rows = table(tmp_path / "out")
    assert [rows[name]["status"] for name in "0123"] == ["done"] * 4
    assert rows["poison"]["status"] == "failed"
    assert "3 processes died at it" in rows["poison"]["message"]
    assert "1 of 5 slides failed" in (tmp_path / "said.txt").read_text()


@pytest.mark.parametrize(
    ("engine", "stop"),
    [("local", signal.SIGINT), ("local", signal.SIGKILL), ("ray", signal.SIGINT), ("ray", signal.SIGTERM)],
)
def test_a_stop_ends_all_processes_and_blames_no_slide(engine, stop, real_slides, command, tmp_path):
    real_slides(tmp_path / "slides", 6)
    words = (tmp_path / "slides", "--output", tmp_path / "out", "--engine", engine, "--slides-at-once", "2")
    process = command(*words, runtime="Green(0.5)")
    until = time.monotonic() + LIMIT_S
    while not list((tmp_path / "out").glob("patient*/.*.partial")):
        assert time.monotonic() < until
        time.sleep(0.1)
    family = descendants(process.pid)
    assert family
    process.send_signal(stop)
    assert process.wait(LIMIT_S) != 0
    said = (tmp_path / "said.txt").read_text()
    assert ("the same command goes on" in said) == (stop != signal.SIGKILL)
    assert "Traceback" not in said
    while set(family) & set(ages()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert not list((tmp_path / "out").rglob("attempts.json"))
    assert command(*words).wait(LIMIT_S) == 0
    assert {row["status"] for row in table(tmp_path / "out").values()} == {"done"}
