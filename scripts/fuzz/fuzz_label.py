"""Ask MONAI Label's server hostile things, and report what must not come of them.

python scripts/fuzz/fuzz_label.py [--requests 1000] [--seed 1] [--seconds 10] [--infer_seconds 60] [--others "/tmp/*"]
python scripts/fuzz/fuzz_label.py --address http://127.0.0.1:8000 --studies DIR     for a server that runs here already

Without an address it starts a server on a folder of its own. DIR is the folder that the server serves, and what is in
it may be changed. A fault is a line, and the exit status 1: an answer of 5xx (but 503 with Retry-After), one that is
late or tells a path of the server; a file outside of the server's folders that is new, changed or gone, or a picture or
version of a label inside that is; a process that takes 1.5 GB more than at the start; a server that does not answer at
the end. OTHERS are patterns of files that other programs write meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import fire
import psutil
from fuzz_requests import Asked, chosen
from fuzz_server import ROOT, Answer, Folders, Server, listening, own_server, peaks, send
from fuzz_values import KNOWN, MARK

from lightmuseg.errors import InputError, report_faults_in_one_line

# bytes of memory
GROWTH = 1_500_000_000
# what no answer may hold: a report of a bug, and what is in a file of the system
LEAKS = ("Traceback (most recent call last)", "site-packages", "root:x:0:")
READABLE = ("text/", "application/json", "application/xml", "multipart/")
# what a broken request began may go on without an answer
SECONDS_TO_SETTLE = 0.5
IMAGE = quote(KNOWN["image"])
FIRST_INFERENCE = Asked("", "", "POST", f"/infer/lightmuseg?image={IMAGE}&output=image")
# what must go on after whatever was taken in
PROBES = tuple(
    Asked("", "", *probe.split())
    for probe in (
        "GET /", "GET /datastore/?output=all", "POST /activelearning/entropy", "POST /activelearning/patch",
        f"GET /datastore/image/info?image={IMAGE}", f"GET /datastore/label/info?label={IMAGE}&tag=final",
    )
)  # fmt: skip


def faults_of(asked: Asked, answer: Answer, seconds: float, server: Server) -> Iterator[str]:
    """What is wrong with an answer."""
    text = answer.body.decode("utf-8", "replace")
    if answer.seconds > seconds:
        yield f"{answer.status or 'no answer'} after {answer.seconds:.1f} s, more than {seconds:g}"
    elif answer.status == 0 and not asked.broken:
        yield text
    if answer.status >= 500 and not (answer.status == 503 and "retry-after" in answer.headers):
        yield f"{answer.status} {' '.join(text.split())[:200]}"
    if MARK in answer.headers:
        yield "a header of the answer is the client's"
    readable = answer.headers.get("content-type", "text/").startswith(READABLE)
    # the log is there to be read
    without = text.replace(str(server.studies), "") if readable and asked.operation != "GET /logs/" else ""
    for secret in (*LEAKS, str(ROOT), str(Path.home()), "lightmuseg-label-", *map(str, server.watched)):
        if secret in without:
            at = without.index(secret)
            yield f"{answer.status} tells {' '.join(without[max(0, at - 60) : at + 120].split())!r}"
            return


def fuzz(server: Server, count: int, seed: int, seconds: float, infer_seconds: float, others: str = "") -> list[str]:
    """Ask, print a table of what was answered, and return the faults.

    Args:
        server: which may lose what its folder of studies holds.
        count: of requests.
        seed: of what chance decides.
        seconds, infer_seconds: for an answer, and for one of an inference.
        others: patterns, with commas between, of files that other programs write meanwhile.
    """
    spec = json.loads(send(server.address, Asked("", "", "GET", "/openapi.json"), seconds).body)
    has_labels = "put" in spec["paths"].get("/datastore/label", {})
    requests, folders, faults = chosen(spec, count, seed), Folders(server, others), []
    answers: dict[str, list[Answer]] = {}
    if has_labels:
        folders.put_back(server.address, infer_seconds)
        # loads the network, whose memory is not the requests'
        send(server.address, FIRST_INFERENCE, infer_seconds)
    first = most = peaks(server.process)
    for number, asked in enumerate(requests, start=1):
        limit = infer_seconds if "/infer" in asked.operation else seconds
        answer = send(server.address, asked, limit)
        answers.setdefault(asked.operation, []).append(replace(answer, body=b""))
        problems = list(faults_of(asked, answer, limit, server))
        if asked.broken:
            time.sleep(SECONDS_TO_SETTLE)
        if (lost := folders.lost()) and asked.operation != "DELETE /datastore/image":
            problems.append(f"{', '.join(lost)}: lost")
        if has_labels:
            problems += _afterwards(asked, answer, seconds, server)
            folders.put_back(server.address, infer_seconds)
        place = f"[request {number}, {asked.what!r}: {asked.curl(server.address)}]"
        faults += [f"{asked.operation}: {problem} {place}" for problem in problems]
        most = most | {kind: max(size, most.get(kind, 0)) for kind, size in peaks(server.process).items()}
        if not server.process.is_running() or server.process.status() == psutil.STATUS_ZOMBIE:
            return [*faults, f"{asked.operation}: the server has ended {place}"]
    for kind in ("server", "inference"):
        if most.get(kind, 0) > first.get(kind, 0) + GROWTH:
            faults.append(f"memory of the {kind}: {_megabytes(first, kind)} at first, {_megabytes(most, kind)} then")
    if (status := send(server.address, Asked("", "", "GET", "/info/"), 5).status) != 200:
        faults.append(f"GET /info/: {status or 'no answer'} at the end")
    print(table(answers))
    grown = ", ".join(f"{kind} {_megabytes(first, kind)} to {_megabytes(most, kind)}" for kind in most)
    print(f"{len(requests)} requests; memory: {grown}")
    return faults + list(folders.touched())


def _afterwards(asked: Asked, answer: Answer, seconds: float, server: Server) -> list[str]:
    """End what a request began, and say what does not go on since."""
    if answer.status == 200 and asked.method == "POST" and asked.target.startswith(("/train/", "/scoring/")):
        stop(server.address, asked.target.split("/")[1], seconds)
    if answer.status != 200 or asked.method != "PUT":
        return []
    then = {probe: send(server.address, probe, seconds) for probe in PROBES}
    return [
        f"afterwards {probe.method} {probe.target}: {problem}"
        for probe, answer in then.items()
        for problem in faults_of(probe, answer, seconds, server)
    ]


def stop(address: str, kind: str, seconds: float) -> None:
    """End the training or scoring that runs, and those that wait for it."""
    for _ in range(8):
        send(address, Asked("", "", "DELETE", f"/{kind}/"), seconds)
        if send(address, Asked("", "", "GET", f"/{kind}/?check_if_running=true"), seconds).status != 200:
            return


def _megabytes(sizes: dict[str, int], kind: str) -> str:
    return f"{sizes.get(kind, 0) / 1e6:.0f} MB"


def table(answers: dict[str, list[Answer]]) -> str:
    """Each operation with its requests, its slowest answer, and how often which status came."""
    lines = [f"{'operation':32}{'requests':>9}{'slowest s':>11}  statuses"]
    for operation, given in sorted(answers.items()):
        statuses = sorted(Counter(answer.status for answer in given).items())
        counts = " ".join(f"{status or 'none'}:{count}" for status, count in statuses)
        lines.append(f"{operation:32}{len(given):9}{max(answer.seconds for answer in given):11.2f}  {counts}")
    return "\n".join(lines)


def distinct(faults: Sequence[str]) -> list[str]:
    """The first of faults that are alike, with the number of the others."""
    alike: dict[str, list[str]] = {}
    for fault in faults:
        alike.setdefault(re.sub(r"\d+|tmp\w+", "", fault.partition(" [request")[0])[:100], []).append(fault)
    return [one[0] + (f" (and {len(one) - 1} like it)" if one[1:] else "") for one in alike.values()]


def main(
    address: str = "", studies: str = "", requests: int = 1000, seed: int = 1, seconds: float = 10,
    infer_seconds: float = 60, others: str | tuple[str, ...] = "",
) -> None:  # fmt: skip
    """See the top of the file."""
    if bool(address) != bool(studies):
        raise InputError("--address and --studies go together: a server, and the folder that it serves.")
    # so that the server of its own ends with it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    patterns = others if isinstance(others, str) else ",".join(others)
    with contextlib.ExitStack() as stack:
        if address:
            server = Server(address.rstrip("/"), listening(address), Path(studies).resolve(), (ROOT,))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="label-"))
            server = stack.enter_context(own_server(Path(folder)))
        faults = fuzz(server, requests, seed, seconds, infer_seconds, patterns)
    print(*distinct(faults), f"{len(faults)} faults", sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    report_faults_in_one_line()
    fire.Fire(main)
