"""Doors that stood open: each of them is tried over HTTP as an attacker, or a second annotator, would."""

import contextlib
import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import tarfile
import zipfile

import psutil
import pytest

pytestmark = pytest.mark.label

RECTANGLE = {"location": [0, 0], "size": [400, 400]}


@pytest.fixture(scope="module")
def own(serve, studies, tmp_path_factory):
    """A server of its own, with a slide that takes long to segment and a tile that does not."""
    folder = tmp_path_factory.mktemp("doors") / "studies"
    folder.mkdir()
    for name in ("roi.tif", "tile 0.png"):
        (folder / name).write_bytes((studies / name).read_bytes())
    # where it alone writes
    temporary = folder.parent / "temporary"
    temporary.mkdir()
    server = serve(folder, "--conf", "patches", "1", TMPDIR=str(temporary))
    server.temporary = temporary
    return server


def archive(kind, target):
    """An archive whose members lead elsewhere, and a zip that is small for what it holds."""
    content = io.BytesIO()
    if kind == "bomb":
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as packed:
            packed.writestr("a", bytes(300_000_000))
        return "bomb.zip", content.getvalue()
    with tarfile.open(fileobj=content, mode="w") as packed:
        member = tarfile.TarInfo({"parent": f"../../../..{target}", "absolute": str(target)}.get(kind, "link"))
        if kind == "link":
            member.type, member.linkname = tarfile.SYMTYPE, str(target)
            packed.addfile(member)
            member = tarfile.TarInfo("link/planted")
        member.size = 4
        packed.addfile(member, io.BytesIO(b"evil"))
    return "slip.tar", content.getvalue()


@pytest.mark.parametrize("kind", ["parent", "absolute", "link", "bomb"])
def test_no_archive_is_unpacked(kind, own, tmp_path):
    target = tmp_path / "planted"
    if kind == "link":
        target.mkdir()
    answer = own("PUT", "/session/?uncompress=true", files={"files": archive(kind, target)})
    assert answer.status_code == 403, answer.text
    assert not any(path.is_file() for path in tmp_path.rglob("*"))
    assert not any(path.stat().st_size > 10**8 for path in own.temporary.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", ["/infer/tumor", "/infer/wsi/tumor", "/infer/wsi_v2/tumor"])
def test_no_session_is_looked_for_nor_its_folder_removed(path, own, tmp_path):
    (tmp_path / "meta.info").write_text(json.dumps({"name": "x", "image": str(tmp_path / "gone")}))
    answer = own("POST", path, params={"session_id": str(tmp_path)}, json={})
    assert answer.status_code == 400, answer.text
    assert (tmp_path / "meta.info").exists()


@contextlib.contextmanager
def waiting_client(own):
    """A client that waits for the whole region, and goes when the block ends."""
    body = b'{"size": [0, 0]}'
    lines = ["POST /infer/wsi/tumor?image=roi HTTP/1.1", f"Host: {own.address[7:]}"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    with socket.create_connection(("127.0.0.1", int(own.address.rsplit(":", 1)[1]))) as connection:
        connection.sendall(head.encode() + body)
        yield connection


def test_server_answers_while_it_segments_and_lets_an_inference_go_with_its_client(own):
    own.infer("tile 0", "json", **RECTANGLE)
    with waiting_client(own) as client:
        answered = [own("GET", path) for path in ("/info/", "/datastore/", "/logs/", "/scoring/", "/openapi.json", "/")]
        assert {answer.status_code for answer in answered} == {200}
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
    # in the queue behind what nobody waits for any more
    own.infer("tile 0", "json", **RECTANGLE)


def test_more_inferences_than_can_wait_are_told_when_to_come_again(own):
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(waiting_client(own)) for _ in range(10)]

        def refused():
            answered, _, _ = select.select(clients, [], [], 0)
            answers = [client.recv(1000, socket.MSG_PEEK).decode() for client in answered]
            return next((answer for answer in answers if answer.startswith("HTTP/1.1 503 ")), None)

        answer = own.wait(refused, 60)
        assert int(re.search(r"^retry-after: (\d+)", answer, re.MULTILINE | re.IGNORECASE)[1]) > 0
    own.infer("tile 0", "json", **RECTANGLE)


def test_nobody_waits_for_a_training_in_the_server(own):
    for path in ("/train/tumor", "/scoring/entropy"):
        answer = own("POST", f"{path}?run_sync=true", json={})
        assert answer.status_code == 400
        assert "run_sync" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/activelearning/first", {"data": b'{"a": "' + bytes(2_000_000) + b'"}'}),
        ("/infer/wsi/tumor?image=roi", {"data": b" " * 2_000_000}),
        ("/train/tumor", {"data": iter([b" " * 500_000] * 4)}),
    ],
)
def test_json_is_small(path, options, own):
    assert own("POST", path, **options).status_code == 413


def test_label_is_no_larger_than_labels_are(own):
    assert own.save("tile 0", "a.xml", " " * 51_000_000).status_code == 413


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:3000", "http://localhost:3000", "http://[::1", "null", "x" * 9000]
)
def test_page_of_another_server_is_refused(origin, own):
    for method, path in (("GET", "/info/"), ("POST", "/activelearning/first"), ("DELETE", "/train/")):
        assert own(method, path, headers={"Origin": origin}).status_code == 403
    assert own("GET", "/info/", headers={"Origin": own.address}).status_code == 200


@pytest.mark.parametrize("params", ["[1]", "1", "{", '"a"', "[" * 50_000])
def test_params_that_are_no_object_are_refused(params, own):
    answer = own("PUT", "/datastore/label?image=tile 0", files={"label": ("a.json", b"{}")}, data={"params": params})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize(
    "options",
    [{"bundle_path": "/tmp"}, {"model": "x"}, {"max_epochs": 0.5}, {"learning_rate": -1}, {"max_epochs": 10**15}, []],
)
def test_training_takes_its_own_options_alone(options, own):
    assert 400 <= own("POST", "/train/tumor", json=options).status_code < 500


def test_graphics_cards_are_not_asked_for_where_there_is_no_program_for_it(own):
    answer = own("GET", "/logs/gpu")
    assert answer.status_code in (200, 404)
    assert answer.text


@pytest.mark.parametrize("far", [1e300, 1e9, -1e5])
def test_label_far_beyond_the_image_is_refused(far, own):
    for name, content in (
        ("a.geojson", {"type": "Polygon", "coordinates": [[[0, 0], [far, 0], [far, far], [0, 0]]]}),
        ("a.xml", [[0, 0], [far, 0], [far, far]]),
    ):
        if name.endswith(".xml"):
            points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(content))
            text = (
                '<ASAP_Annotations><Annotations><Annotation Name="a" PartOfGroup="Tumor" Type="Polygon"><Coordinates>'
                f"{points}</Coordinates></Annotation></Annotations></ASAP_Annotations>"
            )
        else:
            feature = {"type": "Feature", "geometry": content, "properties": {"classification": {"name": "Tumor"}}}
            text = json.dumps({"type": "FeatureCollection", "features": [feature]})
        answer = own.save("tile 0", name, text)
        assert answer.status_code == 400, answer.text
    assert own("HEAD", "/datastore/label?image=tile 0&tag=final").status_code == 404


def test_pages_take_nothing_from_other_servers(own):
    start, docs = own("GET", "/"), own("GET", "/docs")
    for page in (start, docs, own("GET", "/logs/")):
        assert page.status_code == 200
        assert set(re.findall(r"https?://[^/\"'\s<]+", page.text)) <= {own.address}
        assert "'none'" in page.headers["content-security-policy"]
    assert "tile 0" in start.text
    assert "<script" not in start.text
    files = re.findall(r'(?:src|href)="(/[^"]+)"', docs.text)
    assert len(files) == 3
    for file in files:
        assert own("GET", file).status_code == 200, file
    assert own("GET", "/docs/files/../../core.py").status_code == 404


def test_weights_are_neither_replaced_nor_deleted(own):
    for method, path, options in (
        ("PUT", "/model/tumor", {"files": {"file": ("model.pt", b"x")}}), ("DELETE", "/model/tumor", {}),
        ("POST", "/reload", {}), ("GET", "/datastore/dataset", {}), ("POST", "/batch/infer/tumor", {"json": {}}),
    ):  # fmt: skip
        assert own(method, path, **options).status_code == 403
    first = own.studies / ".lightmuseg" / "models" / "tumor" / "v0000.pt"
    assert own("GET", "/model/tumor").content == first.read_bytes()


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("PUT", "/datastore/image/info?image=roi", {"data": {"info": '{"a":' * 230 + "1" + "}" * 230}}),
        ("PUT", "/datastore/image/info?image=roi", {"data": {"info": '{"a": NaN}'}}),
        ("PUT", "/datastore/image/info?image=roi", {"data": {"info": '{"a": "\\ud800"}'}}),
        ("PUT", "/datastore/image/info?image=roi", {"data": {"info": '{"entropy": 5}'}}),
        ("PUT", "/datastore/image/info?image=roi", {"data": {"info": '{"strategy": 5}'}}),
        ("POST", "/activelearning/first", {"json": {"client_id": [[1]]}}),
        ("POST", "/activelearning/first", {"json": {"client_id": "x" * 201}}),
        ("POST", "/activelearning/first", {"json": {"strategy": "random"}}),
        ("POST", "/activelearning/first", {"data": b'{"a": 1e999}'}),
        ("POST", "/infer/tumor?image=roi", {"data": {"params": json.dumps({"level": [0] * 30_000})}}),
        ("POST", "/infer/wsi/tumor?image=roi", {"data": b'{"location": [1e999, 0]}'}),
        ("POST", "/train/tumor", {"data": b'{"max_epochs": 1' + b"0" * 400 + b"}"}),
        ("HEAD", "/datastore/image?image=roi&check_sum=FOO:abc", {}),
        ("PUT", "/datastore/image?image=" + "é" * 150, {"files": {"file": ("a.png", b"x")}}),
        ("PUT", "/datastore/image?image=poly", {"files": {"file": ("a.xml", b"x")}}),
    ],
)
def test_what_would_break_the_server_for_others_is_refused(method, path, options, own):
    before = own("GET", "/datastore/?output=all").json()["objects"]["roi"]["image"]["info"]
    answer = own(method, path, **options)
    assert 400 <= answer.status_code < 500, answer.text
    after = own("GET", "/datastore/?output=all").json()["objects"]["roi"]["image"]["info"]
    assert set(after) - set(before) <= {"entropy", "epistemic"}
    assert own.infer("tile 0", "json", **RECTANGLE).json()["size"] == RECTANGLE["size"]


def test_outlines_that_cross_without_end_are_refused(own):
    bars = [
        [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]
        for step in range(300)
        for x, y, w, h in ((step, 0, 0.5, 500), (0, step, 500, 0.5))
    ]
    features = [
        {
            "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": "Region*"}},
        }
        for ring in bars
    ]  # fmt: skip
    answer = own.save("tile 0", "a.geojson", json.dumps({"type": "FeatureCollection", "features": features}))
    assert answer.status_code == 400
    assert "cross" in answer.json()["detail"]


def test_refused_files_do_not_stay(own):
    for path in ("/datastore/image?image=new", "/infer/wsi_v2/tumor"):
        assert own("PUT" if "image" in path else "POST", path, files={"file": ("a.png", b"garbage")}).status_code == 400
    assert own.save("tile 0", "a.png", b"garbage").status_code == 400
    assert not any(path.is_file() and path.read_bytes() == b"garbage" for path in own.temporary.rglob("*"))


def test_scoring_is_started_and_tells_of_no_folder(own):
    answer = own("POST", "/scoring/entropy", json={})
    assert answer.status_code in (200, 429), answer.text
    assert own("GET", "/scoring/?all=true").json()
    assert own("GET", "/scoring/").json()["id"] in {task["id"] for task in own("GET", "/scoring/?all=true").json()}
    for path in ("/scoring/?all=true", "/"):
        assert str(own.studies.parent) not in own("GET", path).text
        assert "/lightmuseg/label" not in own("GET", path).text


def test_folder_of_somebody_else_leads_nowhere(serve, studies, tmp_path):
    folder, outside = tmp_path / "studies", tmp_path / "outside"
    (folder / "labels").mkdir(parents=True)
    (outside / "labels").mkdir(parents=True)
    (outside / "secret.png").write_bytes((studies / "tile 0.png").read_bytes())
    (folder / "tile 0.png").write_bytes((studies / "tile 0.png").read_bytes())
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "labels" / "final").symlink_to(outside / "labels")
    (folder / os.fsdecode(b"\xff\xfe.png")).write_bytes((studies / "tile 1.png").read_bytes())
    image = {"image": {"info": {}, "ext": ".png"}, "labels": {}}
    objects = {"../outside/secret": image, "/etc/hostname": {**image, "image": {"info": {}, "ext": ""}}}
    objects["tile 0"] = {"image": {"info": {"entropy": 5, "taken": "x", "strategy": {}}, "ext": ".png"}, "labels": {}}
    store = {"name": "x", "description": "x", "images_dir": ".", "labels_dir": "labels", "objects": objects}
    (folder / "datastore_v2.json").write_text(json.dumps(store))
    server = serve(folder, "--conf", "patches", "1")
    assert set(server("GET", "/datastore/?output=all").json()["objects"]) == {"tile 0", "link"}
    for name in ("../outside/secret", "/etc/hostname"):
        assert server("GET", "/datastore/image", params={"image": name}).status_code == 404
        assert server("DELETE", "/datastore/image", params={"id": name}).status_code == 404
    label = json.dumps({"type": "Polygon", "coordinates": [[[1, 1], [90, 1], [90, 90], [1, 1]]]})
    feature = {"type": "Feature", "geometry": json.loads(label), "properties": {"classification": {"name": "Tumor"}}}
    assert server.save("tile 0", "a.geojson", json.dumps(feature)).status_code == 400
    assert server.next("entropy", image="tile 0")["id"] == "tile 0"
    assert server("DELETE", "/datastore/image?id=link").status_code == 200
    assert not (folder / "link.png").is_symlink()
    assert (outside / "secret.png").exists()
    assert list((outside / "labels").iterdir()) == []


@pytest.mark.parametrize("how", ["kill", "ctrl-c"])
def test_what_a_server_started_ends_with_it(how, serve, studies, tmp_path):
    folder = tmp_path / "studies"
    folder.mkdir()
    for index in range(3):
        (folder / f"tile {index}.png").write_bytes((studies / f"tile {index}.png").read_bytes())
    server = serve(folder, "--conf", "patches", "50")
    own = psutil.Process(server.process.pid)

    def started():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = [word for one in own.children(recursive=True) for word in one.cmdline()]
            return (
                own.children(recursive=True)
                if {"scoring", "lightmuseg.label.inference_process"} <= set(words)
                else None
            )

    children = server.wait(started, 120)
    # Ctrl-C reaches all processes of the terminal
    os.kill(own.pid, signal.SIGKILL) if how == "kill" else os.killpg(own.pid, signal.SIGINT)
    _, alive = psutil.wait_procs([own, *children], 60)
    assert not alive


def test_scoring_goes_on_after_an_error_and_waits_where_it_was_stopped(label_environment, tmp_path):
    script = """
import threading, time, types
from lightmuseg.networks.torchvision_operators import declare_missing_operators
declare_missing_operators()
from lightmuseg.label import main

main.SECONDS_AFTER_FAULT = main.SECONDS_BETWEEN_LOOKS = 0.01
looks, begun = [], []

class Task:
    def stale(self, datastore):
        looks.append(1)
        if len(looks) == 1:
            raise ZeroDivisionError("nobody expects it")
        return ["a slide"]

def begins():
    before, until = len(begun), time.monotonic() + 20
    while len(begun) == before and time.monotonic() < until:
        time.sleep(0.01)
    return len(begun) > before

app = main.LightMuSegApp.__new__(main.LightMuSegApp)
store = types.SimpleNamespace(version=0, in_use=lambda: store.version)
app._scoring_methods, app._datastore, app._unscored = {"entropy": Task()}, None, None
app._leading = types.SimpleNamespace(store=store)
app.async_scoring = begun.append
threading.Thread(target=app._keep_scores_fresh, daemon=True).start()
said = [begins()]
app.pause_scoring()
# one look may be under way
time.sleep(0.2)
before = len(begun)
time.sleep(0.5)
said.append(len(begun) == before)
store.version = 1
said.append(begins())
app.pause_scoring()
time.sleep(0.2)
app.resume_scoring()
print(*said, begins())
"""
    command = [label_environment / "bin" / "python", "-W", "ignore", "-c", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["True True True True"], done.stderr[-2000:]
    assert "nobody expects it" in done.stderr
