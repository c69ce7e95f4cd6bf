"""The benchmark of the label server: its clients against a server that is none, its figures against known ones."""

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs, urlsplit

import pytest


@pytest.fixture(scope="module")
def script(root):
    """The module."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    import label_server

    yield label_server
    sys.path.remove(str(root / "scripts" / "benchmark"))


class StandIn(BaseHTTPRequestHandler):
    """Answers as the label server would: trainings run when asked for, scorings while there are later tiles."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def do_GET(self):
        self.answer()

    do_PUT = do_POST = do_DELETE = do_GET

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = urlsplit(self.path)
        state = self.server.state
        with self.server.lock:
            self.server.asked.append((self.command, self.path, body, self.client_address[1]))
            if self.command == "GET" and any(state["studies"].iterdir()) and not self.runs(state["scoring"]):
                state["scoring"].append({"status": "RUNNING"})
            status, said = self.said(self.command, address.path, parse_qs(address.query), state)
        content = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    @staticmethod
    def runs(tasks):
        return bool(tasks) and tasks[-1]["status"] == "RUNNING"

    def said(self, method, path, query, state):
        task = path.split("/")[1]
        if task in ("train", "scoring"):
            tasks = state[task]
            if method == "POST":
                # the first one finds no labels, or nothing to score
                tasks.append({"status": "RUNNING" if tasks else "DONE"})
            if method == "DELETE":
                if not self.runs(tasks):
                    return 200, None
                tasks[-1]["status"] = "STOPPED"
                return 200, tasks[-1]
            return (200, tasks if "all" in query else tasks[-1]) if tasks else (404, "none")
        if path == "/info/":
            return 200, {"models": {"lightmuseg": {"weights_sha256": "abc"}}}
        if path == "/logs/":
            return state["logs"], "a log"
        return 200, {"objects": {"tile_0": {}, "region": {}}}


@pytest.fixture
def stand_in(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    server.lock, server.asked = Lock(), []
    for name in ("studies", "later"):
        (tmp_path / name).mkdir()
    (tmp_path / "later" / "later_0.png").touch()
    server.state = {"train": [], "scoring": [], "studies": tmp_path / "studies", "logs": 200}
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def at_once(script, monkeypatch):
    """No waiting for trainings and inferences to have gone on for a while, and few cancellations."""
    for name, value in {"SECONDS_OF_TASK": 0.0, "EVERY": 0.01, "CANCELS": 2}.items():
        monkeypatch.setattr(script, name, value)


def address_of(server):
    return f"http://127.0.0.1:{server.server_address[1]}"


def answers_of(script, milliseconds, request="GET /info/", late=0.0, status=200):
    return [script.Answer(request, 5 - late, 5, 5 + ms / 1000, status, b"") for ms in milliseconds]


def test_two_clients_ask_in_turn_one_of_them_by_one_connection(script, stand_in, at_once):
    stand_in.state["scoring"].append({"status": "RUNNING"})
    answers, facts = script.asked(script.Server(address_of(stand_in)), 0, 1.0)
    light = [(path, port) for _, path, _, port in stand_in.asked if path in script.LIGHT]
    assert len(answers) == len(light)
    kept, times = Counter(port for _, port in light).most_common(1)[0]
    assert times > 1
    one, other = ([path for path, port in light if (port == kept) is same] for same in (True, False))
    for paths in (one, other):
        assert paths == [script.LIGHT[number % len(script.LIGHT)] for number in range(len(paths))]
    assert len({port for _, port in light}) == 1 + len(other)
    # nothing is trained yet, and a scoring runs all the time
    assert (facts["train"], facts["scoring"]) == (0, 1)


def test_a_run_asks_at_rest_then_at_work_and_cancels(script, stand_in, at_once, tmp_path):
    found = script.measure(script.Server(address_of(stand_in)), tmp_path, 0, 0.5)
    light, cancelled = {f"GET {path}" for path in script.LIGHT}, {"DELETE /train/", "DELETE /scoring/"}
    assert {"GET /info/", "all"} < found["rest"].keys() <= light | {"all", "all, when due"}
    assert {"GET /info/", "all"} | cancelled < found["work"].keys() <= light | cancelled | {"all", "all, when due"}
    assert found["work"]["DELETE /train/"]["number"] == found["work"]["DELETE /scoring/"]["number"] == 2
    assert all(one["errors"] == 0 for part in ("rest", "work") for one in found[part].values())
    for task in script.TASKS:
        assert (found["rest_facts"][task], found["work_facts"][task]) == (0, 1)
    assert len(found["left_at_rest_s"]) == len(found["left_at_work_s"]) == 2
    assert [path.name for path in (tmp_path / "studies").iterdir()] == ["later_0.png"]
    ((path, label),) = [(path, body) for method, path, body, _ in stand_in.asked if method == "PUT"]
    assert path.startswith("/datastore/label?image=region")
    assert b"Region*" in label
    assert b"Tumor" in label
    wanted = [body for method, path, body, _ in stand_in.asked if method == "POST" and path.startswith("/infer/")]
    assert {json.dumps(json.loads(body)) for body in wanted} == {'{"size": [0, 0]}'}


def test_percentiles_are_those_of_the_times(script):
    answers = answers_of(script, range(1, 101)) + answers_of(script, [7], "GET /logs/", late=0.5)
    found = script.summary(answers)
    assert found["GET /info/"] == {
        "number": 100, "errors": 0, "p50_ms": 50.5, "p95_ms": 95.05, "p99_ms": 99.01, "most_ms": 100
    }  # fmt: skip
    assert found["all"]["number"] == 101
    assert (found["all"]["most_ms"], found["all, when due"]["most_ms"]) == (100, 507)


def test_what_fails_is_an_error(script, stand_in):
    server = script.Server(address_of(stand_in))
    stand_in.state["logs"] = 500
    answers = [server.ask("GET", "/logs/"), server.ask("GET", "/info/"), script.Server("http://127.0.0.1:9").infer("a")]
    assert [one.status for one in answers] == [500, 200, 0]
    assert script.summary(answers)["all"]["errors"] == 2
    with pytest.raises(SystemExit, match="GET /logs/: 500"):
        answers[0].json()


def test_the_page_says_what_the_figures_say(script):
    def run(milliseconds):
        names = [f"GET {path}" for path in script.LIGHT]
        rest = [one for name in names for one in answers_of(script, [2], name)]
        work = [one for name in names for one in answers_of(script, [milliseconds], name)]
        work += answers_of(script, [90], "DELETE /train/") + answers_of(script, [80, 80], "DELETE /scoring/", 0.1, 500)
        facts = {"train": 1.0, "scoring": 0.5, "busy": 1.0, "busy_by_others": 0.25}
        return {
            "rest": script.summary(rest), "work": script.summary(work), "rest_facts": facts, "work_facts": facts,
            "inference_s": [9.0], "left_at_rest_s": [[1.0, 2.0]], "left_at_work_s": [[3.0, 4.0]],
        }  # fmt: skip

    options = {**script.options(60, 5), "processor": "a processor", "versions": {"monailabel": "0.8.5"}}
    text = script.report([run(10), run(30), run(20)], options)
    rows = {cells[0]: cells[1:] for line in text.splitlines() if (cells := line.strip("| ").split(" | "))}
    assert rows["GET /info/"] == ["6", "0", "2", "2", "20", "20", "20 (10 to 30)", "20 (10 to 30)"]
    assert rows["DELETE /scoring/"] == ["6", "6", "", "", "80", "80", "80 (80 to 80)", "80 (80 to 80)"]
    assert rows["all, when due"][-1] == "180 (180 to 180)"
    plain = " ".join(text.split())
    assert "Runs: 3, each with a new server, 60 s" in plain
    assert "a processor; monailabel 0.8.5" in plain
    assert "the scoring for 50 (50 to 50)%, and 3 inferences ended, after 9.0 (9.0 to 9.0) s" in plain
    assert "in 1.0 (1.0 to 1.0) s at rest, and in 2.0 (2.0 to 2.0) s" in plain
