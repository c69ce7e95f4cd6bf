"""Damage slides of every format, read them, and report what is read wrongly without a word.

python scripts/fuzz/fuzz_slides.py --data DIR [--inputs 1000] [--seed 1] [--seconds 60] [--keep DIR] [--only FORMAT]

DIR is the folder of real slides that LIGHTMUSEG_DATA names. Each input is one slide with one damage, the same for the
same seed, and ends as refused, the same pixels, named unread, said (a warning), or "differs unsaid". The last is what
only a codec without a check sum may do, and never with pixels that are black, white or another tile's: anything else is
a fault, as are a process that dies, a traceback, and more than SECONDS. Faults are kept in --keep, and end in exit
status 1.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import fire
from slide_damage import damage
from slide_formats import FORMATS, Format
from slide_outcomes import DIFFERS, FAULT, REFUSED, SAID, SAME, UNREAD, outcome, read_whole
from tqdm import tqdm

from lightmuseg.errors import InputError, report_faults_in_one_line

OUTCOMES = (SAME, REFUSED, UNREAD, SAID, DIFFERS, FAULT)
NEVER = ("black", "white", "another tile's")


@dataclass(frozen=True)
class Input:
    """A damaged slide and how it ended."""

    number: int
    format: Format
    kind: str
    done: str
    outcome: str
    detail: str

    @property
    def is_fault(self) -> bool:
        """Whether it ended as nothing may."""
        if self.outcome == DIFFERS:
            return self.format.checked or any(looks in self.detail for looks in NEVER)
        return self.outcome == FAULT

    def __str__(self) -> str:
        return f"input {self.number}, {self.format.name}, {self.done}: {self.outcome}, {self.detail}"


class Reading:
    """A process that reads slides; a new one where it died or took too long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._process: multiprocessing.Process | None = None

    def outcome(self, path: Path, whole: Path) -> tuple[str, str]:
        """How a damaged slide ends, beside the whole one."""
        if self._process is None:
            self._start()
        self._ours.send((path, whole))
        if not self._ours.poll(self._seconds):
            self.close()
            return FAULT, f"more than {self._seconds:g} s"
        try:
            return self._ours.recv()
        except EOFError:
            self._process.join()
            status = self._process.exitcode
            self.close()
            return FAULT, f"the process died with status {status}"

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None


def _serve(pipe: Connection) -> None:
    wholes = {}
    # libraries print what we are told by errors
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    while True:
        path, whole = pipe.recv()
        if whole not in wholes:
            wholes[whole] = read_whole(whole)
        pipe.send(outcome(path, wholes[whole]))


def damaged(formats: list[Format], data: Path, folder: Path, inputs: int, seed: int, seconds: float) -> Iterator[Input]:
    """Damage and read so many slides, one format after the other."""
    reading = Reading(seconds)
    try:
        for number in range(inputs):
            form, chance = formats[number % len(formats)], random.Random(f"{seed} {number}")
            # each in a folder of its own: what lies beside a DICOM file may belong to its slide
            whole, path = (folder / name / form.name / f"slide{form.suffix}" for name in ("whole", "damaged"))
            if not whole.exists():
                whole.parent.mkdir(parents=True)
                path.parent.mkdir(parents=True)
                form.make(data, whole)
                # what was read-only stays so
                whole.chmod(0o600)
            kind, done = damage(whole, path, chance)
            yield Input(number, form, kind, done, *reading.outcome(path, whole))
    finally:
        reading.close()


def table(ended: list[Input]) -> str:
    """How many of each format ended in which way."""
    counts = Counter((one.format.name, one.outcome) for one in ended)
    names = dict.fromkeys(one.format.name for one in ended)
    lines = [f"{'':20}" + "".join(f"{name:>16}" for name in OUTCOMES)]
    lines += [f"{name:20}" + "".join(f"{counts[name, ends]:16}" for ends in OUTCOMES) for name in names]
    totals = Counter(one.outcome for one in ended)
    return "\n".join([*lines, f"{'all':20}" + "".join(f"{totals[ends]:16}" for ends in OUTCOMES)])


def fuzz(
    data: str | None = None, inputs: int = 1000, seed: int = 1, seconds: float = 60, keep: str = "", only: str = ""
) -> None:
    """Damage slides and print how they ended.

    Args:
        data: folder of real slides; by default what LIGHTMUSEG_DATA names.
        inputs: damaged slides.
        seed: of the damage.
        seconds: that reading a slide may take.
        keep: folder for the inputs that were faults.
        only: name of one format.
    """
    data = data or os.environ.get("LIGHTMUSEG_DATA", "")
    if not data or not Path(data).is_dir():
        raise InputError(f"--data {data!r}: is no folder; name the one with real slides.")
    formats = [form for form in FORMATS if not only or form.name == only]
    if not formats:
        raise InputError(f"--only {only}: is none of {', '.join(form.name for form in FORMATS)}.")
    ended = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in tqdm(damaged(formats, Path(data), folder, inputs, seed, seconds), total=inputs, unit="slide"):
            ended.append(one)
            if one.is_fault and keep:
                Path(keep).mkdir(parents=True, exist_ok=True)
                path = folder / "damaged" / one.format.name / f"slide{one.format.suffix}"
                shutil.copy(path, Path(keep) / f"{seed}-{one.number}{one.format.suffix}")
    print(table(ended))
    unsaid = Counter((one.format.name, one.kind, one.detail) for one in ended if one.outcome == DIFFERS)
    for (form, kind, detail), count in sorted(unsaid.items()):
        print(f"differs unsaid: {form}, {kind}: {detail} ({count})")
    faults = [one for one in ended if one.is_fault]
    print("\n".join(map(str, faults)))
    print(f"{len(faults)} faults")
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(fuzz)
