"""What is broken, foreign or hostile gets an answer of 4xx and changes nothing; nothing that was saved is lost."""

import hashlib
import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import requests
from PIL import Image

pytestmark = pytest.mark.label

SQUARE = [[10, 10], [200, 10], [200, 200], [10, 200]]
XML = '<?xml version="1.0"?><!DOCTYPE a [{}]><ASAP_Annotations>&b;</ASAP_Annotations>'
BOMB = XML.format('<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">')
OUTSIDE = XML.format('<!ENTITY b SYSTEM "file:///etc/passwd">')


def asap(points=SQUARE, name="Tumor"):
    """An XML as QuPath's extension writes it."""
    coordinates = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(points))
    return (
        '<?xml version="1.0" encoding="UTF-8" standalone="no"?><ASAP_Annotations>'
        '<Annotations Description="" H="0" Name="" W="0" X="0" Y="0">'
        f'<Annotation Color="#c80000" Name="{name}" PartOfGroup="{name}" Type="Polygon"><Coordinates>{coordinates}'
        f'</Coordinates></Annotation></Annotations><AnnotationGroups><Group Color="#c80000" Name="{name}" '
        'PartOfGroup="None"/></AnnotationGroups></ASAP_Annotations>'
    )


def geojson(geometry, name="Tumor"):
    feature = {"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}
    return json.dumps({"type": "FeatureCollection", "features": [feature]})


def png(array):
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    return content.getvalue()


@pytest.fixture(scope="module")
def own(serve, studies, tmp_path_factory):
    """A server of its own, with two tiles, and as few patches to score as can be."""
    folder = tmp_path_factory.mktemp("safety") / "studies"
    folder.mkdir()
    for index in range(2):
        (folder / f"tile {index}.png").write_bytes((studies / f"tile {index}.png").read_bytes())
    server = serve(folder, "--conf", "patches", "1")
    weights = server.model["weights_sha256"]
    for image in ("tile 0", "tile 1"):
        for method in ("entropy", "epistemic"):
            server.scored(image, method, weights)
    return server


def contents(folder):
    """The hash of every file that is somebody's work."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


LABELS = {
    "too large": ("a.xml", " " * 50_050_000, 400),
    "no XML": ("a.xml", "Tumor everywhere", 400),
    "bomb": ("a.xml", BOMB, 400),
    "entity of a file": ("a.xml", OUTSIDE, 400),
    "other XML": ("a.xml", "<html/>", 400),
    "cut short": ("a.xml", asap()[:200], 400),
    "no number": ("a.xml", asap([["x", 1], [2, 3], [4, 5]]), 400),
    "not finite": ("a.xml", asap([["nan", 1], [2, 3], [4, 5]]), 400),
    "point": ("a.xml", asap([[1, 1]]), 400),
    "line": ("a.xml", asap([[1, 1], [5, 5], [9, 9]]), 400),
    "beside the image": ("a.xml", asap([[9000, 1], [9100, 1], [9100, 90]]), 400),
    "unknown class": ("a.xml", asap(name="Banana"), 400),
    "no class": ("a.geojson", json.dumps({"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}), 400),
    "points": ("a.geojson", geojson({"type": "Point", "coordinates": [1, 1]}), 400),
    "no JSON": ("a.geojson", "{", 400),
    "deep": ("a.geojson", "[" * 100_000, 400),
    "other kind": ("a.exe", b"MZ", 400),
    "no name": ("..", b"x", 400),
    "wrong size": ("a.png", png(np.zeros((100, 512), np.uint8)), 400),
    "unknown index": ("a.png", png(np.full((512, 512), 7, np.uint8)), 400),
    "half a picture": ("a.png", png(np.zeros((512, 512), np.uint8))[:300], 400),
    "no picture": ("a.png", b"\x89PNG\r\n\x1a\n broken", 400),
}  # fmt: skip


@pytest.mark.parametrize("kind", LABELS)
def test_label_that_cannot_be_is_refused_and_changes_nothing(kind, own):
    name, content, status = LABELS[kind]
    before = contents(own.studies)
    answer = own.save("tile 0", name, content)
    assert answer.status_code == status, answer.text
    assert "/" not in answer.json()["detail"].replace("x,y", ""), "a path of the server is told"
    assert "\n" not in answer.json()["detail"]
    assert contents(own.studies) == before


@pytest.mark.parametrize("image", ["../tile 0", "/etc/passwd", "..", "nobody", "", "tile 0/../tile 1", "a" * 5000])
def test_image_that_is_not_there_is_not_found(image, own):
    before = contents(own.studies)
    asked = {"params": {"image": image}}
    xml = {"label": ("a.xml", asap())}
    answers = [
        own("GET", "/datastore/image", **asked),
        own("PUT", "/datastore/label", files=xml, **asked),
        own("POST", "/infer/tumor", **asked),
        own("POST", "/infer/wsi/tumor", json={}, **asked),
        own("PUT", "/datastore/image/info", data={"info": '{"a": 1}'}, **asked),
        own("DELETE", "/datastore/image", params={"id": image}),
    ]
    if image:
        answers.append(own("POST", "/activelearning/first", json={"image": image}))
    assert all(400 <= answer.status_code < 500 for answer in answers), [answer.status_code for answer in answers]
    assert contents(own.studies) == before


@pytest.mark.parametrize("tag", ["../../x", "a/b", "..", "x" * 100, "é"])
def test_tag_leads_nowhere_else(tag, own):
    before = contents(own.studies)
    answer = own("PUT", "/datastore/label", params={"image": "tile 0", "tag": tag}, files={"label": ("a.xml", asap())})
    assert answer.status_code == 400
    assert contents(own.studies) == before


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("../escaped", "a.png", None),
        ("/tmp/escaped", "a.png", None),
        (".hidden", "a.png", None),
        ("tile 1", "a.png", None),
        ("new", "a.sh", b"#!/bin/sh"),
        ("new", "a.png", b"no picture"),
        ("new", "a.svs", b"II*\0 no slide"),
        ("n" * 400, "a.png", None),
    ],
)
def test_image_that_cannot_be_is_not_taken_in(name, file, content, own):
    before = contents(own.studies)
    content = png(np.zeros((64, 64, 3), np.uint8)) if content is None else content
    answer = own("PUT", "/datastore/image", params={"image": name}, files={"file": (file, content)})
    assert answer.status_code == 400, answer.text
    assert contents(own.studies) == before


@pytest.mark.parametrize(
    "wanted",
    [
        {"location": [600, 500], "size": [100, 100]}, {"location": [-9, 0], "size": [9, 9]},
        {"location": [0, 0], "size": [0, 9]},
        {"level": 3}, {"level": -1}, {"location": [0], "size": [1]}, {"tile_size": [0, 0]}, {"size": [-5, 5]},
        {"min_poly_area": -1},
    ],
)  # fmt: skip
def test_region_that_is_not_there_is_refused(wanted, own):
    answer = own("POST", "/infer/wsi/tumor?image=tile 0", json=wanted)
    assert answer.status_code == 400, answer.text


def test_broken_image_in_the_folder_is_told_without_the_servers_folders(own):
    (own.studies / "broken.tif").write_bytes(b"II*\0 no slide")
    answer = own("POST", "/infer/wsi/tumor?image=broken", json={})
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("broken.tif: ")
    assert own("POST", "/activelearning/first", json={}).json()["id"] != "broken"
    (own.studies / "broken.tif").unlink()


def test_names_that_are_not_known_are_refused(own):
    assert own("POST", "/infer/other?image=tile 0").status_code == 404
    assert own("POST", "/train/other", json={}).status_code == 404
    assert own("POST", "/scoring/other", json={}).status_code == 404
    assert own("POST", "/activelearning/other").status_code == 404
    assert own("POST", "/activelearning/first", json={"patch_size": [0, 5]}).status_code == 400
    assert own("POST", "/infer/tumor?image=tile 0", data={"params": "{"}).status_code == 400
    assert own("POST", "/proxy/dicom/x").status_code == 403


def test_training_without_enough_labels_says_so(own):
    task = own.train(max_epochs=1)
    assert task["status"] == "ERROR"
    assert "annotate more" in "".join(task["details"])
    assert not any("Traceback" in line for line in task["details"])
    assert own("POST", "/train/tumor", json={"max_epochs": "many"}).status_code == 400


def test_request_that_is_too_large_is_refused_before_it_is_read(own):
    def endless():
        yield b"x"

    headers = {"Content-Length": str(5 * 10**9), "Content-Type": "application/octet-stream"}
    request = requests.Request("PUT", f"{own.address}/datastore/image?image=big", headers=headers).prepare()
    request.headers["Content-Length"] = headers["Content-Length"]
    assert requests.Session().send(request, timeout=120).status_code == 413


def test_pages_of_other_servers_are_refused(own):
    assert own("GET", "/info/", headers={"Origin": "http://evil.example"}).status_code == 403
    assert own("GET", "/info/", headers={"Host": "evil.example"}).status_code == 421
    assert own("GET", "/info/", headers={"Origin": own.address}).status_code == 200


def test_every_version_of_a_label_stays(own):
    texts = [asap([[10 + n, 10], [200, 10], [200, 200]]) for n in range(8)]
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda text: own.save("tile 1", "a.xml", text), texts))
    assert [answer.status_code for answer in answers] == [200] * 8
    assert sorted(answer.json()["info"]["version"] for answer in answers) == list(range(1, 9))
    kept = own.studies / "labels" / "final" / "versions" / "tile 1"
    assert sorted(path.read_text() for path in kept.glob("*.xml")) == sorted(texts)
    other = own.save("tile 1", "a.geojson", geojson({"type": "Polygon", "coordinates": [[*SQUARE, SQUARE[0]]]}))
    assert other.json()["info"]["version"] == 9
    assert [path.name for path in (own.studies / "labels" / "final").glob("tile 1.*")] == ["tile 1.geojson"]
    assert own("DELETE", "/datastore/label?id=tile 1&tag=final").status_code == 200
    assert len(list(kept.glob("0*.*"))) == 18, "labels and what was said of each"
    assert own("GET", "/datastore/label?label=tile 1&tag=final").status_code == 404


def test_images_put_into_the_folder_are_seen(own):
    assert "late" not in own("GET", "/datastore/?output=all").json()["objects"]
    (own.studies / "late.png").write_bytes(png(np.zeros((64, 64, 3), np.uint8)))
    assert "late" in own("GET", "/datastore/?output=all").json()["objects"]
    (own.studies / "late.png").unlink()
    assert "late" not in own("GET", "/datastore/?output=all").json()["objects"]


def test_uploaded_picture_is_segmented_and_taken_in(own, studies):
    content = (studies / "tile 2.png").read_bytes()
    answer = own("POST", "/infer/wsi_v2/tumor?output=asap", files={"file": ("patch.png", content)}, data={"wsi": "{}"})
    assert answer.status_code == 200, answer.text
    assert answer.text.count("<ASAP_Annotations>") == 1
    assert own("PUT", "/datastore/image?image=patch", files={"file": ("patch.png", content)}).status_code == 200
    assert own("GET", "/datastore/image?image=patch").content == content
    again = own("POST", "/infer/wsi/tumor?image=patch&output=asap", json={})
    assert again.text == answer.text


class Realm(BaseHTTPRequestHandler):
    """What MONAI Label asks an identity provider for."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        text = json.dumps({"public_key": self.server.key, "token_endpoint": "http://127.0.0.1:9/token"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


def test_with_authentication_on_nothing_answers_a_stranger(serve, studies, tmp_path):
    key = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDXJ"  # never good for a token
    realm = ThreadingHTTPServer(("127.0.0.1", 0), Realm)
    realm.key = key
    threading.Thread(target=realm.serve_forever, daemon=True).start()
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "tile 0.png").write_bytes((studies / "tile 0.png").read_bytes())
    server = serve(
        folder, MONAI_LABEL_AUTH_ENABLE="true", MONAI_LABEL_AUTH_REALM_URI=f"http://127.0.0.1:{realm.server_port}"
    )
    assert server.first_answer.status_code == 401
    paths = [
        ("GET", "/info/"), ("GET", "/datastore/"), ("GET", "/datastore/image?image=tile 0"),
        ("PUT", "/datastore/label?image=tile 0"), ("POST", "/infer/tumor?image=tile 0"),
        ("POST", "/infer/wsi/tumor?image=tile 0"), ("POST", "/train/tumor"), ("DELETE", "/train/"),
        ("POST", "/activelearning/first"), ("GET", "/model/tumor"), ("GET", "/logs/"), ("PUT", "/session/"),
        ("GET", "/session/x"), ("POST", "/scoring/entropy"), ("POST", "/batch/infer/tumor"), ("POST", "/reload"),
    ]  # fmt: skip
    answers = {path: server(method, path).status_code for method, path in paths}
    assert set(answers.values()) <= {401, 403, 404}, answers
    assert server("GET", "/info/", headers={"Authorization": "Bearer abc.def.ghi"}).status_code == 401
    realm.shutdown()
