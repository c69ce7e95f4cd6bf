import errno
import hashlib
import socket
import threading
from contextlib import contextmanager
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lightmuseg.data import download
from lightmuseg.data.download import NoAnswer, Web
from lightmuseg.errors import InputError

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(download, "LONGEST_PAUSE_S", 0.002)


@contextmanager
def serving(*answers):
    """A server's address, and the Range of each request; each of ``answers`` (status, headers, content) is for one."""
    ranges, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *words):
            pass

        def do_GET(self):
            ranges.append(self.headers.get("Range"))
            status, headers, content = left.pop(0)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/file", ranges
    finally:
        server.shutdown()
        server.server_close()


def whole(content=CONTENT, **headers):
    return 200, {"Content-Length": len(content), **headers}, content


def part(start, stop=None):
    headers = {"Content-Range": f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return 206, {"Content-Length": len(CONTENT) - start, **headers}, CONTENT[start:stop]


def test_a_file_goes_on_where_the_connection_was_cut(tmp_path):
    arrived = []
    cut = (200, {"Content-Length": len(CONTENT)}, CONTENT[:300_000])
    with serving(cut, part(300_000, 600_000), (503, {}, b""), part(600_000)) as (url, ranges):
        Web().file(url, tmp_path / "new" / "a.svs", len(CONTENT), MD5, arrived.append)
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=600000-"]
    assert (tmp_path / "new" / "a.svs").read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.svs"]


def test_what_an_interrupted_command_left_is_not_fetched_again(tmp_path):
    (tmp_path / "a.svs.part").write_bytes(CONTENT[:1000])
    with serving(part(1000)) as (url, ranges):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert ranges == ["bytes=1000-"]
    assert (tmp_path / "a.svs").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_everything_anew(tmp_path):
    arrived = []
    (tmp_path / "a.svs.part").write_bytes(b"?" * 1000)
    with serving(whole()) as (url, _):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5, arrived.append)
    assert (tmp_path / "a.svs").read_bytes() == CONTENT
    assert sum(arrived) == len(CONTENT) - 1000


def test_another_part_than_was_asked_for_is_not_taken(tmp_path):
    (tmp_path / "a.svs.part").write_bytes(CONTENT[:1000])
    with serving(part(999), part(1000)) as (url, _):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert (tmp_path / "a.svs").read_bytes() == CONTENT


def test_a_spoilt_file_is_fetched_once_more_and_then_refused(tmp_path):
    spoilt = b"?" + CONTENT[1:]
    with serving(whole(spoilt), whole()) as (url, _):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert (tmp_path / "a.svs").read_bytes() == CONTENT
    with serving(whole(spoilt), whole(spoilt)) as (url, _), pytest.raises(NoAnswer, match=f"MD5 .*, not {MD5}"):
        Web().file(url, tmp_path / "b.svs", len(CONTENT), MD5)
    assert [path.name for path in tmp_path.iterdir()] == ["a.svs"]


def test_more_bytes_than_were_stated_are_not_written(tmp_path):
    with serving(whole(CONTENT + b"x" * 5_000_000)) as (url, _), pytest.raises(NoAnswer, match="more than"):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert not (tmp_path / "a.svs").exists()
    assert (tmp_path / "a.svs.part").stat().st_size <= len(CONTENT)
    with serving(whole()) as (url, _), pytest.raises(NoAnswer, match="more than 1000 bytes"):
        Web().content(url, 1000)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_fault_that_passes_is_waited_out(status):
    arrived = []
    with serving((status, {"Retry-After": "0"}, b""), (200, {"Content-Length": 9}, b"half"), whole(b"all")) as (
        url,
        asked,
    ):
        assert Web().content(url, 100, arrived.append) == b"all"
    assert len(asked) == 3
    assert sum(arrived) == 3


def test_an_answer_without_what_was_asked_for_is_waited_out(tmp_path):
    with serving((202, {"Content-Length": 0}, b""), whole(b"all")) as (url, _):
        assert Web().content(url, 100) == b"all"
    with serving((202, {"Content-Length": 0}, b""), whole()) as (url, _):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    with serving(*[(202, {}, b"")] * download.TRIES) as (url, _), pytest.raises(NoAnswer, match="answers 202 Accepted"):
        Web().content(url, 100)


def test_a_server_that_stays_broken_is_given_up():
    with serving(*[(503, {}, b"")] * download.TRIES) as (url, asked), pytest.raises(NoAnswer, match="503"):
        Web().content(url, 100)
    assert len(asked) == download.TRIES


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_refusal_is_believed_at_once(status):
    with serving((status, {}, b"")) as (url, _), pytest.raises(NoAnswer, match=f"/file: answers {status}") as caught:
        Web().content(f"{url}?secret=1", 100)
    assert caught.value.status == status
    assert "secret" not in str(caught.value)


def test_where_nobody_listens_the_host_is_named_soon():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(NoAnswer, match=rf"127.0.0.1:{port}/a: cannot be reached \(.*refused\)") as caught:
        Web().json(f"http://127.0.0.1:{port}/a")
    assert not caught.value.is_reached
    assert "\n" not in str(caught.value)


def test_a_server_that_is_silent_is_given_up(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.05)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(NoAnswer, match="timed out"):
            Web().content(f"http://127.0.0.1:{silent.getsockname()[1]}/", 10)


def test_what_is_no_json_is_refused():
    with serving(whole(b"<html>")) as (url, _), pytest.raises(NoAnswer, match="no JSON"):
        Web().json(url)


def test_redirections_are_followed_within_the_web_only(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    with serving(whole(b"there")) as (there, _), serving((302, {"Location": there}, b"")) as (url, _):
        assert Web().content(url, 100) == b"there"
    for target in (secret.as_uri(), "ftp://127.0.0.1/secret", "data:,secret"):
        with serving(*[(302, {"Location": target}, b"")] * download.TRIES) as (url, _), pytest.raises(NoAnswer):
            Web().content(url, 100)
    with pytest.raises(InputError, match="https://"):
        Web().content(secret.as_uri(), 100)


@pytest.mark.parametrize("target", ["http://[x/", f"http://{'a' * 70}.com/", "http://127.0.0.1\u00a0/", "http://a:b/"])
def test_a_redirection_to_what_is_no_address_is_refused_in_a_line(target):
    with serving(*[(302, {"Location": target}, b"")] * download.TRIES) as (url, _), pytest.raises(NoAnswer) as caught:
        Web().content(url, 100)
    assert str(caught.value).startswith(f"{url}: ")


def test_what_a_server_states_is_neither_trusted_nor_repeated_at_length():
    with serving((200, {"Content-Length": "9" * 5000}, b"all")) as (url, _):
        assert Web().content(url, 100) == b"all"
    error = download.urllib.error.HTTPError("http://there", 404, "x\n" * 30_000, {}, None)
    web = Web()
    web._opener.open = lambda *_, **__: raised(error)
    with pytest.raises(NoAnswer, match=r"\Ahttp://there: answers 404 x x .*") as caught:
        web.content("http://there", 100)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_network_that_is_gone_for_a_while_is_waited_for(tmp_path, monkeypatch):
    read, faults = HTTPResponse.read1, [OSError(errno.EHOSTUNREACH, "No route to host")]
    monkeypatch.setattr(HTTPResponse, "read1", lambda *words: raised(faults.pop()) if faults else read(*words))
    with serving(whole(), whole()) as (url, asked):
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert (tmp_path / "a.svs").read_bytes() == CONTENT
    assert len(asked) == 2


def raised(error):
    raise error


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_disk_that_is_full_is_named(tmp_path):
    (tmp_path / "a.svs.part").symlink_to("/dev/full")
    with serving(whole()) as (url, asked), pytest.raises(OSError, match="No space left") as caught:
        Web().file(url, tmp_path / "a.svs", len(CONTENT), MD5)
    assert caught.value.filename == str(tmp_path / "a.svs.part")
    assert len(asked) == 1


def test_an_encrypted_connection_leads_to_no_plain_one():
    request = download.urllib.request.Request("https://there/file")
    follow = download._Redirects().redirect_request
    assert follow(request, None, 302, "", {}, "https://elsewhere/file").full_url == "https://elsewhere/file"
    with pytest.raises(download.urllib.error.HTTPError, match="without encryption"):
        follow(request, None, 302, "", {}, "http://there/file")


def test_what_is_stopped_ends_without_waiting(monkeypatch):
    monkeypatch.setattr(download, "FIRST_PAUSE_S", 1000.0)
    monkeypatch.setattr(download, "LONGEST_PAUSE_S", 1000.0)
    web = Web()
    with serving((503, {}, b"")) as (url, _):
        threading.Timer(0.05, web.stopped.set).start()
        with pytest.raises(NoAnswer, match="was stopped"):
            web.content(url, 100)
