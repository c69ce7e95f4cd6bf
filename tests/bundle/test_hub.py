"""The exported bundle goes to the Hugging Face Hub, here to a stand-in that speaks the hub's HTTP interface."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

REPOSITORY = "pathology/lightmuseg"
TOKEN = "hf_standin"
# as the hub decides for binary files
LFS_ABOVE = 1_000_000


class Hub(BaseHTTPRequestHandler):
    """Create a repository, say how each file is to come, take large files by LFS, then the commit and the tags."""

    def log_message(self, *arguments):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def allowed(self):
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.answer({"error": "Invalid username or password."}, 401)
        return False

    def do_GET(self):
        if self.allowed():
            self.answer(
                {"id": REPOSITORY, "sha": "0" * 40, "siblings": [], "tags": [], "name": "pathology", "type": "user"}
            )

    do_HEAD = do_GET

    def do_PUT(self):
        self.server.objects[self.path.rsplit("/", 1)[-1]] = self.body()
        self.answer({})

    def do_POST(self):
        body = self.body()
        if not self.allowed():
            return None
        address = f"http://127.0.0.1:{self.server.server_port}"
        if self.path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            return self.answer({"url": f"{address}/{REPOSITORY}", "name": REPOSITORY})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self.answer({"files": [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] > LFS_ABOVE else "regular", "shouldIgnore": False}
                for f in files
            ]})  # fmt: skip
        if self.path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            actions = [
                {"oid": o["oid"], "size": o["size"], "actions": {"upload": {"href": f"{address}/objects/{o['oid']}"}}}
                for o in wanted
            ]
            return self.answer({"transfer": "basic", "objects": actions})
        if "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.server.files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.server.files[value["path"]] = self.server.objects[value["oid"]]
            return self.answer({"commitUrl": f"{address}/{REPOSITORY}/commit/{'1' * 40}", "commitOid": "1" * 40})
        if "/tag/" in self.path:
            self.server.tags.append(json.loads(body)["tag"])
        return self.answer({})


@pytest.fixture
def hub():
    """A running stand-in; ``files`` are what its repository holds."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.created, server.files, server.objects, server.tags = None, {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def push(run, hub, output, token):
    return run(
        "python", "scripts/export_bundle.py", "--output", output, "--push-to-hf", REPOSITORY,
        HF_ENDPOINT=f"http://127.0.0.1:{hub.server_port}", HF_TOKEN=token, HF_HUB_DISABLE_XET="1", HF_HUB_OFFLINE="0",
    )  # fmt: skip


@pytest.mark.slow
def test_bundle_is_pushed_whole_and_as_every_export_writes_it(run, hub, tmp_path, exported, version):
    status, stdout, stderr = push(run, hub, tmp_path, TOKEN)
    assert status == 0, stderr
    folder = tmp_path / exported.name
    sent = {name: hashlib.sha256(content).hexdigest() for name, content in hub.files.items() if name != "README.md"}
    hashes, again = (
        {path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
         for path in place.rglob("*") if path.is_file()}
        for place in (exported, folder)
    )  # fmt: skip
    # the hub's own kind of file, made by the client
    sent.pop(".gitattributes", None)
    # addresses of large files were given to the first export alone
    sent.pop("large_files.yml"), hashes.pop("large_files.yml"), again.pop("large_files.yml")
    assert sent == again == hashes
    assert hub.files["README.md"].startswith(b"---\ntags:\n- monai")
    assert hub.files["README.md"].endswith((folder / "docs" / "README.md").read_bytes())
    assert hub.tags == [version]
    assert hub.created["name"] == "lightmuseg"
    assert f"/{REPOSITORY}" in stdout


def test_wrong_token_is_told_in_one_line_before_any_work(run, hub, tmp_path):
    status, _, stderr = push(run, hub, tmp_path, "hf_wrong")
    assert status == 1
    assert stderr.splitlines()[-1].startswith(f"lightmuseg: error: {REPOSITORY}: ")
    assert "Traceback" not in stderr
    assert hub.files == {}
    assert list(tmp_path.iterdir()) == []


def test_repository_without_an_owner_is_refused_before_any_work(run, tmp_path):
    status, _, stderr = run("python", "scripts/export_bundle.py", "--output", tmp_path, "--push-to-hf", "lightmuseg")
    assert status == 1
    assert "--push-to-hf lightmuseg: give the owner and the name" in stderr
    assert list(tmp_path.iterdir()) == []
