"""The fuzz of MONAI Label's server: that it finds what it looks for, in a small server, and in the real one nothing."""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from lightmuseg.errors import InputError

NAME = {"name": "name", "in": "query", "required": True, "schema": {"type": "string"}}
SPEC = {
    "openapi": "3.1.0", "info": {"title": "small", "version": "1"},
    "paths": {"/pictures": {"get": {"parameters": [NAME], "responses": {"200": {"description": "one"}}}}},
}  # fmt: skip
SECONDS = 2


@pytest.fixture(scope="module")
def script(root):
    """The script as a module."""
    pytest.importorskip("schemathesis")
    sys.path.insert(0, str(root / "scripts" / "fuzz"))
    import fuzz_label

    yield fuzz_label
    sys.path.remove(str(root / "scripts" / "fuzz"))


class Small(BaseHTTPRequestHandler):
    """A server of one operation, which does what the test says where the name is hostile."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        address = urlsplit(self.path)
        (name,) = parse_qs(address.query).get("name", [""])[-1:]
        if address.path == "/openapi.json":
            self.answer(200, json.dumps(SPEC))
        elif address.path == "/info/" and getattr(self.server, "spoiled", False):
            self.answer(404, "{}")
        elif not re.fullmatch(r"\w*", name) and address.path == "/pictures":
            self.server.hostile(self, name)
        else:
            self.answer(200, "{}")

    def send_error(self, status, *said):
        # of a method that it does not know
        self.answer(405, "{}")

    def answer(self, status, text, **headers):
        with contextlib.suppress(ConnectionError):
            self.send_response(status)
            for header, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(header.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(text.encode())


@pytest.fixture
def fuzzed(script, tmp_path, capsys, monkeypatch):
    """Fuzz a small server that does ``hostile`` with hostile names; returns its faults and what was printed."""
    monkeypatch.setattr(script, "SECONDS_TO_SETTLE", 0)
    studies = tmp_path / "own" / "studies"
    studies.mkdir(parents=True)
    from fuzz_values import PICTURES

    for name, content in PICTURES.items():
        (studies / name).write_bytes(content)

    def fuzz(hostile, count=60, process=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Small)
        server.hostile = hostile
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            asked = script.Server(address, process or psutil.Process(), studies, (tmp_path / "own",))
            # other tests write outside meanwhile; beside the folder, and by our names, only we do
            faults = script.fuzz(asked, count, 1, SECONDS, SECONDS, others="*")
        finally:
            server.shutdown()
            server.server_close()
        return faults, capsys.readouterr().out

    return fuzz


def test_server_that_refuses_what_is_hostile_has_no_faults(fuzzed):
    faults, printed = fuzzed(lambda handler, name: handler.answer(400, '{"detail": "no such picture"}'))
    assert faults == []
    assert "60 requests" in printed
    row = next(line for line in printed.splitlines() if line.startswith("GET /pictures"))
    assert " 200:" in row
    assert " 400:" in row


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, "Internal Server Error"), "500 Internal Server Error"),
        ((503, "busy"), "503 busy"),
        ((400, 'File "/x/site-packages/a.py"'), "400 tells"),
        ((400, "Traceback (most recent call last):"), "400 tells"),
        ((200, "root:x:0:0:root"), "200 tells"),
    ],
)
def test_answer_that_may_not_be_is_a_fault_of_its_operation(answer, said, fuzzed):
    faults, _ = fuzzed(lambda handler, name: handler.answer(*answer))
    assert faults
    assert all(fault.startswith(f"GET /pictures: {said}") for fault in faults), faults
    assert all("curl --path-as-is -X GET" in fault for fault in faults)


def test_own_path_told_and_header_made_up_by_the_client_are_faults(fuzzed, root):
    told, _ = fuzzed(lambda handler, name: handler.answer(404, f"{root}/secret: is not there"))
    assert "tells" in told[0]
    made_up, _ = fuzzed(lambda handler, name: handler.answer(200, "{}", fuzzed="1"))
    assert "a header of the answer is the client's" in made_up[0]


def test_busy_server_that_says_when_to_come_again_is_none(fuzzed):
    assert fuzzed(lambda handler, name: handler.answer(503, "busy", Retry_After="1"))[0] == []


def test_answer_that_does_not_come_is_a_fault(fuzzed):
    def hang(handler, name):
        time.sleep(2 * SECONDS)

    faults, _ = fuzzed(hang, 20)
    assert faults
    assert all("no answer after" in fault for fault in faults)


def test_file_outside_of_its_folder_is_a_fault(fuzzed, tmp_path):
    def write(handler, name):
        (tmp_path / "own" / "planted").write_text(name)
        (tmp_path / "own" / "studies" / "taken in.png").write_text(name)
        handler.answer(200, "{}")

    faults, _ = fuzzed(write)
    assert faults == [f"{tmp_path}/own/planted: is new"]


def test_picture_that_is_gone_is_a_fault_and_put_back(fuzzed, tmp_path):
    def remove(handler, name):
        (tmp_path / "own" / "studies" / "fuzzed 1.png").unlink(missing_ok=True)
        handler.answer(200, "{}")

    faults, _ = fuzzed(remove)
    assert faults[0].startswith("GET /pictures: fuzzed 1.png: lost")


@pytest.fixture
def process():
    """A process that takes 0.3 GB more for each line that it is sent."""
    code = "import sys\nheld = []\nfor _ in sys.stdin: held.append(bytearray(b'a') * 300_000_000); print(flush=True)"
    started = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    yield started
    started.kill()
    started.communicate()


def test_memory_that_grows_is_a_fault(fuzzed, script, process, monkeypatch):
    monkeypatch.setattr(script, "GROWTH", 500_000_000)
    lines = [b"a\n", b"b\n"]

    def grow(handler, name):
        if lines:
            process.stdin.write(lines.pop())
            process.stdin.flush()
            process.stdout.readline()
        handler.answer(200, "{}")

    (fault,), _ = fuzzed(grow, process=psutil.Process(process.pid))
    assert fault.startswith("memory of the server: ")


def test_server_that_ends_is_a_fault(fuzzed, process):
    def end(handler, name):
        process.kill()
        process.wait()
        handler.answer(200, "{}")

    faults, _ = fuzzed(end, process=psutil.Process(process.pid))
    assert "the server has ended [request" in faults[-1]


def test_server_that_does_not_answer_afterwards_is_a_fault(fuzzed):
    def spoil(handler, name):
        handler.server.spoiled = True
        handler.answer(200, "{}")

    assert fuzzed(spoil)[0] == ["GET /info/: 404 at the end"]


def test_address_without_its_folder_is_refused(script):
    with pytest.raises(InputError, match="go together"):
        script.main(address="http://127.0.0.1:1")


def test_faults_that_are_alike_are_said_once(script):
    faults = [f"GET /a: took {n}.5 s [request {n}, 'a']" for n in range(3)]
    assert script.distinct([*faults, "GET /b: 500"]) == [f"{faults[0]} (and 2 like it)", "GET /b: 500"]


@pytest.mark.nightly
def test_label_server_withstands_a_thousand_hostile_requests(root, label_environment):
    # where the tests beside it write
    others = f"{tempfile.gettempdir()}/*,{root}/*,{Path.home()}/*"
    command = [sys.executable, "scripts/fuzz/fuzz_label.py", "--requests", "1000", "--others", others]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "1000 requests" in done.stdout
