"""The command itself: how it begins, what it says, how it ends."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from lightmuseg.view import view_server as server


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere: is no folder; name the output of lightmuseg segment or cohort."),
        ([".", "--port", "many"], "--port many: give a whole number."),
        ([".", "--port", "65536"], "--port 65536: give a whole number, 0 to 65535."),
        ([".", "--host", "999.0.0.1"], "999.0.0.1:8080: cannot be listened at"),
        ([".", "--port", "taken"], "cannot be listened at (Address already in use"),
    ],
)
def test_faults_end_in_one_line(run, words, says, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        words = [str(other.getsockname()[1]) if word == "taken" else word for word in words]
        status, said, wrong = run("python", "-m", "lightmuseg.cli", "view", *words, cwd=tmp_path)
    assert status == 1
    assert said == ""
    (line,) = wrong.strip().splitlines()
    assert line.startswith("lightmuseg: error: ")
    assert says in line


def test_without_its_packages_it_names_the_extra(tmp_path):
    # as where they are not installed: nothing called starlette is found
    code = (
        "import sys, pathlib\n"
        "from lightmuseg.view import view_server as server\n"
        "sys.modules['starlette'] = None\n"
        "server.find_spec = lambda name: None\n"
        "server.serve(pathlib.Path('.'), '127.0.0.1', 0, print)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "InputError: starlette and uvicorn are not installed; pip install 'lightmuseg[view]'." in done.stderr


def test_answers_do_not_wait_for_acknowledgements():
    with (
        server.listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_serves_an_empty_folder_to_others_with_a_warning_until_ctrl_c(root, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "out").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "lightmuseg.cli", "view", "out", "--host", "0.0.0.0", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("http://0.0.0.0:")
            assert line.endswith(" shows out: no results yet; reload the page when there are. Ctrl-C ends it.\n")
            port = int(line.split()[0].rsplit(":", 1)[1])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/results") as answer:
                assert answer.read() == b'{"folder":"out","results":[],"failed":{},"skipped":{}}'
                assert "server" not in answer.headers
            # as no well-behaved client would ask
            for target in ("/../secret.txt", "../secret.txt", "/%2e%2e/secret.txt", "/\0", "/results/../../secret.txt"):
                with socket.create_connection(("127.0.0.1", port)) as raw:
                    raw.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                    status = raw.makefile("rb").read()
                assert status.split()[1] in (b"400", b"404")
                assert b"secret" not in status.split(b"\r\n\r\n", 1)[1]
        finally:
            process.send_signal(signal.SIGINT)
            _, wrong = process.communicate(timeout=120)
    assert process.returncode == 0
    (warning,) = [text for text in wrong.splitlines() if text]
    assert warning.startswith("lightmuseg: warning: --host 0.0.0.0: everybody who reaches this computer")
