"""What the server refuses."""

import base64
import hashlib
import json
import os
import re
import shutil
import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from lightmuseg.view.app import make_app
from lightmuseg.view.open_files import OpenFiles
from lightmuseg.view.result_list import Results


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/%00", "//etc/passwd",
        "/static/%2e%2e%2fapp.py", "/static/..%5capp.py", "/static//etc/passwd", "/static/%2fetc%2fpasswd",
        "/static/app.py", "/static/", "/static/index.html%00", "/static/openseadragon.json%00.js",
        "/results/../secret.txt", "/results/..%2f..%2fsecret.txt", "/results/%2e%2e/%2e%2e/secret.txt", "/results/one",
        "/results/one/run.json", "/results/one/../../secret.txt", "/results/%2Fetc%2Fpasswd/report.html",
        "/results/one%00/report.html", "/results/../report.html", "/results/%ff%fe/report.html",
        "/results/" + "a" * 9000,
    ],
)  # fmt: skip
def test_no_path_leads_out_of_the_results(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404)
    assert "secret" not in answer.text
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200), ("localhost:8080", 200), ("LOCALHOST", 200), ("[::1]:8080", 200), ("127.0.0.1", 200),
        ("evil.example", 421), ("evil.example:8080", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil", 421),
        ("10.0.0.7:8080", 421), ("evil@127.0.0.1", 421), ("127.0.0.1/evil", 421), ("", 421), ("[::1", 421),
        ("0.0.0.0", 421),
    ],
)  # fmt: skip
def test_a_foreign_name_of_the_server_is_refused(client, host, status):
    for path in ("/", "/results", "/static/main.js", "/nothing"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == (404 if path == "/nothing" and status == 200 else status)


def test_a_server_for_others_knows_its_addresses_and_no_foreign_names(made):
    asking = TestClient(make_app(Results(made / "results"), "0.0.0.0"), base_url="http://10.0.0.7:8080")
    assert asking.get("/").status_code == 200
    assert asking.get("/", headers={"Host": "evil.example"}).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
def test_nothing_can_be_written(client, ids, made, method):
    before = sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*"))
    for path in ("/", "/results", f"/results/{ids['one']}", "/static/main.js", "/nothing"):
        answer = client.request(method, path, content=b"x")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "GET, HEAD"
    assert sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*")) == before


@pytest.mark.parametrize(
    "tail",
    [
        "slide/99/0/0.jpg", "slide/11/3/0.jpg", "slide/11/0/3.jpg", "slide/-1/0/0.jpg", "slide/11/-1/0.jpg",
        "slide/1e1/0/0.jpg", "slide/11/0/0.png", "slide/999999999999999999999/0/0.jpg", f"slide/11/{'9' * 5000}/0.jpg",
        "slide/11/%D9%A1/0.jpg", "slide/11/0/.jpg", "slide/0x0b/0/0.jpg", "slide/ 11/0/0.jpg", "slide/11/0/0/0.jpg",
        "map/1/99/0/0.png", "map/3/10/0/0.png", "map/0/10/0/0.png", "map/254/10/0/0.png", "map//10/0/0.png",
        "map/1-/10/0/0.png", "map/1--2/10/0/0.png", "map/x/10/0/0.png", f"map/{'1-' * 3000}1/10/0/0.png",
        "map/1/10/0/1000000.png", "map/1/nan/0/0.png",
    ],
)  # fmt: skip
def test_tiles_that_are_not_there_are_not_found(client, ids, tail):
    version = client.get(f"/results/{ids['one']}").json()["version"]
    for made_for in (version, "0" * 16):
        assert client.get(f"/results/{ids['one']}/{made_for}/{tail}").status_code == 404


@pytest.mark.parametrize(
    "query",
    ["", "x0=1&y0=1", "x0=nan&y0=1&step0=1", "x0=1&y0=inf&step0=1", "x0=1e300&y0=1&step0=1", "x0=1&y0=1&step0=0",
     "x0=1&y0=1&step0=-1", "x0=one&y0=1&step0=1", "x0=%00&y0=1&step0=1", "x0=" + "1" * 100 + "&y0=1&step0=1"],
)  # fmt: skip
def test_places_that_cannot_be_are_a_bad_request(client, ids, query):
    assert client.get(f"/results/{ids['one']}/region?{query}").status_code == 400


def test_links_that_lead_out_are_not_followed(made, tmp_path):
    root = shutil.copytree(made / "results", tmp_path / "own")
    outside = tmp_path / "outside"
    shutil.copytree(root / "one", outside)
    (root / "linked").symlink_to(outside)
    for name in ("classes.tif", "report.html", "overlay.png", "regions.geojson", "measurements.csv"):
        (root / "one" / name).unlink()
        (root / "one" / name).symlink_to(outside / name)
    (root / "two").mkdir()
    (root / "two" / "run.json").symlink_to(outside / "run.json")
    client = TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1")
    answer = client.get("/results").json()
    assert [one["place"] for one in answer["results"]] == ["one", "patient 7/left/two"]
    assert list(answer["skipped"]) == ["two"]
    one = answer["results"][0]
    assert one["areas_mm2"] == {}
    for tail in (
        "report.html", f"{one['version']}/map/1/10/0/0.png", f"{one['version']}/thumbnail.jpg",
        "region?x0=300&y0=300&step0=1",
    ):  # fmt: skip
        assert client.get(f"/results/{one['id']}/{tail}").status_code == 404


@pytest.mark.parametrize(
    "content", [None, b"", b"\0", b'{"type": "FeatureCollection", "features": [\n' + b"[" * 99_999]
)
@pytest.mark.parametrize("name", ["regions.geojson", "overlay.png", "report.html"])
def test_files_that_are_missing_or_damaged_are_told_in_a_line(made, tmp_path, name, content):
    root = shutil.copytree(made / "results", tmp_path / "own")
    client = TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1")
    one = client.get("/results").json()["results"][0]
    tail = {
        "regions.geojson": "region?x0=300&y0=300&step0=1", "overlay.png": f"{one['version']}/thumbnail.jpg",
        "report.html": "report.html",
    }[name]  # fmt: skip
    path = root / "one" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    answer = client.get(f"/results/{one['id']}/{tail}")
    if name == "report.html" and content is not None:
        # a report is shown as it is
        assert answer.content == content
        return
    assert answer.status_code == 404
    assert name in answer.json()["detail"]
    assert "\n" not in answer.json()["detail"]


def test_texts_that_are_no_unicode_are_shown_somehow(made, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        root = shutil.copytree(made / "results", tmp_path / "own")
        (root / "one").rename(root / name)
    except OSError:
        pytest.skip("this file system has no such names")
    path = root / name / "run.json"
    record = json.loads(path.read_text())
    record.update(warnings=["\ud800", 7, "x" * 10_000], slide="\udfff.tif", options={"class_names": ["\ud800", "<b>"]})
    path.write_text(json.dumps(record))
    (root / "bad\udce9").mkdir()
    (root / "bad\udce9" / "run.json").write_text('{"slide": "\\ud800", "options": {}}')
    client = TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1")
    answer = client.get("/results").json()
    (one,) = [one for one in answer["results"] if one["place"] == name]
    assert len(answer["skipped"]) == 1
    details = client.get(f"/results/{one['id']}").json()
    assert details["classes"][0]["name"] == "\ud800"
    assert [len(text) for text in details["warnings"]] == [1, 500]
    assert client.get(f"/results/{one['id']}/{one['version']}/map/1/10/0/0.png").status_code == 200
    assert client.get(f"/results/{one['id']}/{one['version']}/slide/10/0/0.jpg").status_code == 404


@pytest.mark.parametrize(
    "table", [b"measure,unit\ntumor_area,mm2\n", b"measure,unit,value\ntumor_area,mm2\n", b"\xff", b""]
)
def test_tables_that_are_no_measurements_show_no_areas(made, tmp_path, table):
    root = shutil.copytree(made / "results", tmp_path / "own")
    (root / "one" / "measurements.csv").write_bytes(table)
    (root / "cohort.csv").write_bytes(table)
    results = Results(root)
    assert next(result for result in results.refresh() if result.place == "one").areas_mm2 == {}
    assert results.failed == {}


def test_a_record_that_is_a_pipe_is_not_waited_for(made, tmp_path):
    root = shutil.copytree(made / "results", tmp_path / "own")
    (root / "one" / "run.json").unlink()
    os.mkfifo(root / "one" / "run.json")
    results = Results(root)
    assert "one" not in [result.place for result in results.refresh()]
    assert "is no file of at most 10 MB" in results.skipped["one"]


@pytest.mark.parametrize("place", ["1e999", "NaN", "Infinity"])
def test_regions_at_no_place_are_told(made, tmp_path, place):
    root = shutil.copytree(made / "results", tmp_path / "own")
    path = root / "one" / "regions.geojson"
    path.write_text(re.sub(r"\[\d+\.?\d*,", f"[{place},", path.read_text(), count=3))
    client = TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1")
    one = client.get("/results").json()["results"][0]
    answer = client.get(f"/results/{one['id']}/region?x0=300&y0=300&step0=1")
    assert answer.status_code == 404
    assert "regions.geojson: " in answer.json()["detail"]


def test_outlines_are_short_whatever_is_asked(made, tmp_path):
    root = shutil.copytree(made / "results", tmp_path / "own")
    angles = np.linspace(0, 2 * np.pi, 10_000, endpoint=False)
    radii = 400 + 100 * np.sin(angles * 1900)
    ring = np.stack([600 + radii * np.cos(angles), 500 + radii * np.sin(angles)], axis=-1)
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[*ring.tolist(), ring[0].tolist()]]},
        "properties": {"classification": {"name": "tumor"}},
    }  # fmt: skip
    head = '{"type": "FeatureCollection", "features": ['
    (root / "one" / "regions.geojson").write_text(f"{head}\n{json.dumps(feature)}\n]}}\n")
    client = TestClient(make_app(Results(root), "127.0.0.1"), base_url="http://127.0.0.1")
    one = client.get("/results").json()["results"][0]
    for step0 in ("1e-300", "1", "1000"):
        found = client.get(f"/results/{one['id']}/region?x0=600&y0=500&step0={step0}").json()
        assert found["class"] == "tumor"
        assert 3 <= sum(map(len, found["outline"])) / 2 <= 4000


def test_answers_bound_what_a_browser_does(client, ids):
    for path in ("/", "/results", "/static/main.js", "/nothing", f"/results/{ids['one']}"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers
    report = client.get(f"/results/{ids['one']}/report.html")
    assert "report" in report.text
    policy = report.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script-src" not in policy
    assert "sandbox" in policy


def test_page_names_nothing_elsewhere_and_runs_nothing_inline(root):
    folder = root / "lightmuseg" / "view" / "static"
    for path in [*folder.glob("*.html"), *folder.glob("*.css"), *folder.glob("*.js")]:
        text = path.read_text(encoding="utf-8")
        if path.name.startswith("openseadragon"):
            continue
        assert "//" not in text.replace("// ", ""), path.name
        assert "innerHTML" not in text
        assert "style=" not in text
        assert " onclick" not in text


def test_openseadragon_is_the_release_that_is_recorded(root):
    folder = root / "lightmuseg" / "view" / "static"
    record = json.loads((folder / "openseadragon.json").read_text())
    for name, expected in record["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    assert f"openseadragon {record['version']}\n" in (folder / "openseadragon.min.js").read_text()[:40]


def test_policy_lets_in_openseadragons_own_style_alone(client, root):
    text = (root / "lightmuseg" / "view" / "static" / "openseadragon.min.js").read_text()
    (style,) = re.findall(r'createElement\("style"\);.{0,99}?textContent="([^"]*)"', text)
    expected = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"; style-src 'self' 'sha256-{expected}';" in client.get("/").headers["content-security-policy"]


def test_few_things_are_kept_open_and_closes_none_in_use():
    class Thing:
        made = 0
        open = 0

        def __init__(self, key):
            if key == "bad":
                raise OSError(key)
            time.sleep(0.001)
            Thing.made += 1
            Thing.open += 1
            self.closed = False

        def close(self):
            Thing.open -= 1
            self.closed = True

    kept = OpenFiles(Thing, room=3)
    most, faults = [], []

    def work(number):
        for step in range(200):
            try:
                with kept.using(key := (number * 7 + step * 3) % 10) as thing:
                    most.append(Thing.open)
                    if thing.closed:
                        faults.append(key)
            except OSError as error:
                faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert Thing.open == len(kept) <= 3
    # and those that end while others begin
    assert max(most) <= 3 + 2 * len(threads)
    for _ in range(2):
        with pytest.raises(OSError, match="bad"), kept.using("bad"):
            pass
    assert len(kept) <= 3
    with kept.using("last") as thing:
        kept.close()
        assert not thing.closed
    assert Thing.open == 0


def test_same_thing_is_opened_once_for_many_threads():
    opened = []
    kept = OpenFiles(lambda key: (time.sleep(0.05), opened.append(key), key)[2], room=2)

    def work():
        with kept.using("a") as thing:
            assert thing == "a"

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["a"]


def test_a_thousand_results_are_listed_and_read_once(made, tmp_path):
    source = made / "results" / "one"
    for number in range(1000):
        folder = tmp_path / f"batch {number % 10}" / f"slide {number}"
        folder.mkdir(parents=True)
        for name in ("run.json", "measurements.csv", "overlay.png", "classes.tif"):
            os.link(source / name, folder / name)
    results = Results(tmp_path)
    first = results.refresh()
    assert len(first) == len({result.id for result in first}) == 1000
    second = results.refresh()
    assert all(before is after for before, after in zip(first, second)), "what is known is not read again"
