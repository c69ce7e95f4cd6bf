"""How soon the label server answers while it works: LIGHTMUSEG_DATA=DATA python scripts/benchmark/label_server.py.

scripts/label.sh serves a slide, a region and tiles. One client has the whole region segmented, again and again, a
training and a scoring go on, and two clients ask what must be answered soon. Then trainings and scorings are cancelled,
and clients that wait for an inference go away. Before, the same is asked of the server at rest. Writes
docs/benchmarks/label_server.*.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import numpy as np
import psutil
import requests
import shapely
from figures import DOCS, processor, publish
from label_server_report import report
from PIL import Image

from lightmuseg.provenance import sha256_of
from lightmuseg.text_files import write_json

ROOT = Path(__file__).parents[2]
WEIGHTS = ROOT / "bundle" / "models" / "model.pt"
SVS, REGION = "CMU-1-Small-Region.svs", "TCGA-A2-A1G6-DX1_xmin57706_ymin69514_MPP-0.2500.png"
SIDE, TILE, PATCHES, SEED = 3000, 512, 64, 42
STARTS = {"train": ("/train/lightmuseg", {"max_epochs": 10_000}), "scoring": ("/scoring/entropy", {})}
TASKS, METHODS = tuple(STARTS), ("entropy", "epistemic")
# what two clients ask in turn, each so many seconds after the one before
LIGHT, EVERY = ("/info/", "/datastore/", "/datastore/?output=all", "/logs/", "/train/", "/scoring/"), 0.05
# cancelled and left by their clients: so many, so many seconds after the start
CANCELS, SECONDS_OF_TASK, SECONDS_OF_INFERENCE = 5, 3.0, 2.0
PACKAGES = ("monailabel", "fastapi", "uvicorn", "torch")


@dataclass(frozen=True)
class Answer:
    """What came of a request: when it was due, sent and answered, in seconds of a clock; status 0 is no answer."""

    request: str
    due: float
    sent: float
    done: float
    status: int
    content: bytes

    def json(self) -> Any:
        """What is said to a request that must succeed."""
        if self.status != 200:
            raise SystemExit(f"label_server: error: {self.request}: {self.status}: {self.content.decode()[:500]}")
        return json.loads(self.content)


def summary(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Of each request and of all: number, errors, milliseconds; those of "all, when due" count from then."""
    asked = {name: [a for a in answers if a.request == name] for name in sorted({a.request for a in answers})}
    asked |= {"all": list(answers), "all, when due": list(answers)}
    result = {}
    for name, group in asked.items():
        seconds = [one.done - (one.due if name.endswith("due") else one.sent) for one in group]
        median, p95, p99, most = (1000 * np.percentile(seconds, [50, 95, 99, 100])).round(2).tolist()
        facts = {"number": len(group), "errors": sum(one.status != 200 for one in group)}
        result[name] = {**facts, "p50_ms": median, "p95_ms": p95, "p99_ms": p99, "most_ms": most}
    return result


@contextmanager
def meanwhile(*clients: Iterator[Answer]) -> Iterator[list[Answer]]:
    """Let clients ask, each in a thread, until the block ends; gives what they have been answered."""
    answers: list[Answer] = []
    ended = threading.Event()

    def run(client: Iterator[Answer]) -> None:
        for answer in client:
            answers.append(answer)
            if ended.is_set():
                return

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join()


class Server:
    """A label server at an address, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, method: str, path: str, due: float | None = None, client: Any = requests, **sent: Any) -> Answer:
        """Send a request, by a connection of its own where ``client`` is no session."""
        start = time.perf_counter()
        try:
            answer = client.request(method, self.address + path, **{"timeout": 600, **sent})
            status, content = answer.status_code, answer.content
        except requests.RequestException as error:
            status, content = 0, str(error).encode()
        return Answer(f"{method} {path}", due or start, start, time.perf_counter(), status, content)

    def infer(self, image: str, timeout: float = 600) -> Answer:
        """Have all of an image segmented."""
        return self.ask("POST", f"/infer/wsi/lightmuseg?image={image}", timeout=timeout, json={"size": [0, 0]})

    def light(self, client: Any = requests) -> Iterator[Answer]:
        """Ask each of LIGHT in turn, at fixed times: a late answer delays the next request, which was due before."""
        due = time.perf_counter()
        for path in itertools.cycle(LIGHT):
            time.sleep(max(0.0, due - time.perf_counter()))
            yield self.ask("GET", path, due, client)
            due += EVERY

    def states(self, task: str) -> set[str]:
        """Of all trainings, or scorings, since the start."""
        answer = self.ask("GET", f"/{task}/?all=true")
        return {one["status"] for one in answer.json()} if answer.status != 404 else set()

    def start(self, task: str) -> None:
        """Wait until one runs."""
        if not self.states(task) & {"SUBMITTED", "RUNNING"}:
            path, asked_for = STARTS[task]
            begun = self.ask("POST", path, json=asked_for)
            # a scoring may begin by itself, and is not begun twice
            if begun.status != 429:
                begun.json()
        wait(lambda: "RUNNING" in self.states(task))


def wait(ready: Callable[[], bool]) -> None:
    """Wait until something is so, half an hour at most."""
    for _ in range(6000):
        if ready():
            return
        time.sleep(0.3)
    raise SystemExit("label_server: error: the server does not do what was asked in half an hour.")


def prepare(source: Path, folder: Path, tiles: int) -> None:
    """Make ``folder/studies``, a slide, a region and tiles of it, all with scores, and ``folder/later``, more tiles."""
    studies, later, region = folder / "studies", folder / "later", source / "bcss" / "rgbs" / REGION
    for one in (studies, later):
        one.mkdir()
    (studies / SVS).write_bytes((source / "slides" / SVS).read_bytes())
    words = [ROOT / "scripts" / "make_pyramid.py", "--source", region, "--output", studies / "region.tif"]
    words = [sys.executable, "-W", "ignore", *words, "--side", SIDE]
    subprocess.run([str(word) for word in words], check=True, stdout=subprocess.DEVNULL)
    picture, random = Image.open(region).convert("RGB"), np.random.default_rng(SEED)
    for number in range(2 * tiles):
        x, y = random.integers(0, np.array(picture.size) - TILE).tolist()
        path = studies / f"tile_{number}.png" if number < tiles else later / f"later_{number}.png"
        picture.crop((x, y, x + TILE, y + TILE)).save(path)
    patches = [[number * TILE, 0, TILE, TILE, number / PATCHES] for number in range(PATCHES)]
    scores = {"score": 0.5, "patches": patches, "weights_sha256": sha256_of(WEIGHTS)}
    info = dict.fromkeys(METHODS, scores)
    objects = {
        path.stem: {"image": {"info": {"name": path.name, **info}, "ext": path.suffix}, "labels": {}}
        for path in studies.iterdir()
    }
    listed = {"name": "", "description": "", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    write_json(studies / "datastore_v2.json", listed)


@contextmanager
def served(studies: Path) -> Iterator[tuple[Server, int]]:
    """A server for a folder, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # as a user's would run, whatever was set for this process
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    words = ["bash", ROOT / "scripts" / "label.sh", studies, "--port", port, "--conf", "patches", 200]
    with (studies.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words], stdout=log, stderr=log, start_new_session=True,
            env={"PYTHON": sys.executable, **clean},
        )  # fmt: skip
    try:
        server = Server(f"http://127.0.0.1:{port}")
        wait(lambda: process.poll() is not None or server.ask("GET", "/info/").status == 200)
        yield server, process.pid
    except SystemExit as error:
        said = (studies.parent / "log").read_text(errors="replace")
        raise SystemExit(f"{error}\nThe server's last words:\n{said[-2000:]}") from error
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def benchmark(data: str = "", runs: int = 3, seconds: float = 60, tiles: int = 60, output: str = str(DOCS)) -> None:
    """Measure, each time with a new server and folder.

    Args:
        data: the folder of slides and regions; LIGHTMUSEG_DATA where it is not given.
        runs: their number.
        seconds: of the two clients' asking, at rest and at work.
        tiles: in the folder beside slide and region; as many come later, so that the scoring lasts.
        output: folder of the figures.
    """
    measured = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            prepare(Path(data or os.environ["LIGHTMUSEG_DATA"]), folder, tiles)
            with served(folder / "studies") as (server, process):
                measured.append(measure(server, folder, process, seconds))
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {PACKAGES}}}))"
    python = ROOT / ".venv-label" / "bin" / "python"
    versions = json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)
    facts = {**options(seconds, tiles), "versions": versions}
    publish("label_server", report(measured, facts), {**facts, "runs": measured}, output)


def options(seconds: float, tiles: int) -> dict[str, Any]:
    """What the figures were measured with, and the requests that they are of."""
    return {
        "seconds": seconds, "tiles": tiles, "side": SIDE, "tile": TILE, "patches": PATCHES, "every_s": EVERY,
        "cancels": CANCELS, "left_after_s": SECONDS_OF_INFERENCE, "processor": processor(),
        "requests": [f"GET {path}" for path in LIGHT] + [f"DELETE /{task}/" for task in TASKS],
    }  # fmt: skip


def measure(server: Server, folder: Path, process: int, seconds: float) -> dict[str, Any]:
    """One run: at rest, at work, cancelled, left."""
    # so that there is one of each to be asked for; they find nothing to do
    for path in ("/train/lightmuseg", "/scoring/entropy"):
        server.ask("POST", path, json={}).json()
    wait(lambda: not {"SUBMITTED", "RUNNING"} & (server.states("train") | server.states("scoring")))
    server.infer("tile_0").json()
    rest, rest_facts = asked(server, process, seconds)
    left_at_rest = [left(server) for _ in range(CANCELS)]

    shapes = {"Region*": shapely.box(0, 0, SIDE, SIDE), "Tumor": shapely.box(500, 500, 1500, 1500)}
    drawn = [
        {"type": "Feature", "geometry": shape.__geo_interface__, "properties": {"classification": {"name": name}}}
        for name, shape in shapes.items()
    ]
    label = {"label": ("label.geojson", json.dumps({"type": "FeatureCollection", "features": drawn}))}
    server.ask("PUT", "/datastore/label?image=region&tag=final", files=label, data={"params": "{}"}).json()
    for path in (folder / "later").iterdir():
        path.rename(folder / "studies" / path.name)
    with meanwhile(server.infer("region") for _ in itertools.count()) as inferences:
        for task in TASKS:
            server.start(task)
        wait(lambda: bool(inferences))
        work, work_facts = asked(server, process, seconds)
        with meanwhile(server.light(), server.light(requests.Session())):
            cancelled = [cancel(server, task) for _ in range(CANCELS) for task in TASKS]
    for task in TASKS:
        server.start(task)
    return {
        "rest": summary(rest), "work": summary(work + cancelled), "rest_facts": rest_facts, "work_facts": work_facts,
        "inference_s": [round(one.done - one.sent, 2) for one in inferences],
        "left_at_rest_s": left_at_rest, "left_at_work_s": [left(server) for _ in range(CANCELS)],
    }  # fmt: skip


def asked(server: Server, process: int, seconds: float) -> tuple[list[Answer], dict[str, float]]:
    """What two clients are answered, one of which keeps its connection; and what went on meanwhile, as shares of 1."""
    ran: dict[str, list[bool]] = {task: [] for task in TASKS}
    before, end = _processor_seconds(process), time.perf_counter() + seconds
    with meanwhile(server.light(), server.light(requests.Session())) as answers:
        while time.perf_counter() < end:
            for task, seen in ran.items():
                seen.append("RUNNING" in server.states(task))
            time.sleep(min(1.0, seconds / 10))
    total, busy, own = _processor_seconds(process) - before
    shares = {task: float(np.mean(seen)) for task, seen in ran.items()}
    return answers, {**shares, "busy": busy / total, "busy_by_others": max(0.0, busy - own) / total}


def _processor_seconds(session: int) -> np.ndarray:
    """Of all processors since the start: all, busy, and busy for the server's processes and this one."""
    times, own = psutil.cpu_times(), 0.0
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or os.getsid(process.pid) == session:
                own += sum(process.cpu_times()[:4])
        except (OSError, psutil.Error):
            # it has ended
            continue
    return np.array([sum(times), sum(times) - times.idle - times.iowait, own])


def cancel(server: Server, task: str) -> Answer:
    """The answer to a cancellation that did cancel something."""
    while True:
        server.start(task)
        time.sleep(SECONDS_OF_TASK)
        answer = server.ask("DELETE", f"/{task}/")
        if answer.content != b"null":
            return answer


def left(server: Server) -> list[float]:
    """Seconds until a tile is segmented: as it is, and where a client just went that waited for the region."""
    undisturbed = server.infer("tile_0")
    server.infer("region", timeout=SECONDS_OF_INFERENCE)
    after = server.infer("tile_0")
    return [round(one.done - one.sent, 2) for one in (undisturbed, after) if one.json()]


if __name__ == "__main__":
    fire.Fire(benchmark)
