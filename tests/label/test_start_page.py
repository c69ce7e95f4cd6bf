"""The label server's start page: it says what the server knows, names stay text, and nothing comes from elsewhere."""

import copy
import re
import time
from collections import deque
from datetime import datetime
from html.parser import HTMLParser

import pytest

from lightmuseg.classes import COLOURS, SPARE_COLOURS
from lightmuseg.label.start_page import METHODS, start_page, start_page_without_names

ADDRESS = "http://127.0.0.1:8000"
DASH = "\u2013"
HASH = "0123456789abcdef" * 4
VOID = {"meta", "link"}
# after whose end a word goes on
INLINE = {"a", "bdi", "code", "em", "span", "time"}
HOSTILE = [
    "<script>alert(1)</script>", "</pre></style></bdi><img src=x onerror=alert(1)>", "\" onmouseover=\"alert(1)' x='",
    "long " * 40, "&lt;b&gt; &amp; {{ 7*7 }} {% endfor %} <!-- ", "\u202eexe.\u05d0\u05d1\u05d2 javascript:alert(1)",
]  # fmt: skip


class Page(HTMLParser):
    """A page's elements, text and tables; raises where elements are not closed in their order."""

    def __init__(self, html):
        super().__init__()
        # elements with their attributes; the same with all text in them, as they end; rows of cells by a table's class
        self.elements, self.texts, self.tables = [], [], {}
        self._open, self._rows, self._cells = [], [], []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append((tag, dict(attributes), []))

    def handle_endtag(self, tag):
        begun, attributes, parts = self._open.pop()
        assert begun == tag
        text = "".join(parts)
        self.texts.append((tag, attributes, text))
        if tag not in INLINE:
            self.handle_data(" ")
        if tag in ("td", "th") and attributes.get("scope") != "col":
            self._cells.append(" ".join(text.split()))
        elif tag == "tr" and self._cells:
            self._rows, self._cells = [*self._rows, self._cells], []
        elif tag == "table":
            self.tables[attributes["class"]], self._rows = self._rows, []

    def handle_data(self, text):
        for _, _, parts in self._open:
            parts.append(text)

    def of(self, tag, **wanted):
        return [text for name, attributes, text in self.texts if name == tag and wanted.items() <= attributes.items()]

    def values(self, attribute):
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]

    @property
    def words(self):
        return " ".join(self.of("body")[0].split())


def shown(state):
    return Page(start_page(*state, ADDRESS))


def label(ts, version):
    return {"info": {"ts": ts, "version": version, "name": "one.geojson"}, "ext": ".geojson"}


def scores(score, sha256=HASH):
    return {"score": score, "patches": [[0, 0, 512, 512, score]], "weights_sha256": sha256}


@pytest.fixture
def state():
    """What a server knows after some work: the arguments of start_page but the address."""
    versions = [
        {"version": 0, "in_use": False, "sha256": "f" * 64, "added": "2026-03-01T12:00:00+0000", "from": "model.pt"},
        {
            "version": 1, "in_use": True, "sha256": HASH, "added": "2026-03-02T13:30:00+0100", "dice_before": 0.61249,
            "dice": 0.73251, "tiles": 1048, "held_out_tiles": 12, "images": 3,
        },
        {"version": 2, "in_use": False, "added": "2026-03-03T01:02:03-0500", "dice": None, "dice_before": 0.5},
    ]  # fmt: skip
    model = {"classes": ["stroma", "lymphocytic_infiltrate", "gland"], "mpp": 0.5, "weights_sha256": HASH}
    stats = {"tumor": {"versions": versions}}
    info = {"name": "LightMuSeg", "version": "9.8.7", "models": {"tumor": model}, "train_stats": stats}
    failed = {"score": -1, "patches": [], "weights_sha256": HASH, "error": "d.png: is broken; delete it.\nTraceback"}
    objects = {
        "d": {"image": {"info": {"entropy": failed}, "ext": ".png"}, "labels": {}},
        "a": {
            "image": {"info": {"entropy": scores(0.12349), "epistemic": scores(0.0005, "e" * 64)}, "ext": ".svs"},
            "labels": {"original": label(1772300000, 1), "final": label(1772366460, 3)},
        },
        "c": {"image": {"info": {"ts": 1}, "ext": ".tif"}, "labels": {"original": label(1772500000, 12)}},
        "b": {"image": {"info": {"entropy": scores(1)}, "ext": ".ndpi"}, "labels": {"final": label(1772366520, 1)}},
    }
    training = {
        "id": "1", "status": "DONE", "request": {}, "start_ts": "2026-03-02 11:00:01", "end_ts": "2026-03-02 11:20:09",
        "details": deque(["training on 48 tiles", "version 1: Dice 0.733 held out, 0.612 before"], maxlen=20),
    }  # fmt: skip
    scoring = {"id": "2", "status": "RUNNING", "start_ts": "2026-03-02 11:21:00", "details": ["x", "1 of 4"]}
    return [info, objects, training, scoring]


def local(seconds):
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def test_values_come_back_from_the_page_as_they_were_given(state):
    page = shown(state)
    assert page.tables["images"] == [
        ["a.svs", f"final, version 3, {local(1772366460)} original, version 1, {local(1772300000)}", "0.123",
         "0.001 earlier weights"],
        ["b.ndpi", f"final, version 1, {local(1772366520)}", "1.000", DASH],
        ["c.tif", f"not labelled original, version 12, {local(1772500000)}", DASH, DASH],
        ["d.png", "not labelled", "d.png: is broken; delete it.", DASH],
    ]  # fmt: skip
    # 2026-03-01T12:00:00Z is 1772366400
    assert page.tables["versions"] == [
        ["Version 2", DASH, "0.500", DASH, DASH, "no", local(1772366400 + 42 * 3600 + 123)],
        ["Version 1", "0.733 on 12 tiles", "0.612", "1,048", "3", "in use", local(1772366400 + 24 * 3600 + 1800)],
        ["Version 0 to start from", DASH, DASH, DASH, DASH, "no", local(1772366400)],
    ]
    colours = (COLOURS["stroma"], COLOURS["lymphocytic_infiltrate"], SPARE_COLOURS[0])
    assert page.values("fill") == ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours]
    assert page.of("title") == page.of("h1") == ["LightMuSeg label server"]
    assert page.of("code") == [ADDRESS, HASH[:12]]
    assert page.of("pre") == ["training on 48 tiles\nversion 1: Dice 0.733 held out, 0.612 before\n", "1 of 4"]
    for says in (
        "Version 9.8.7. Research use only.", f"Labelled 2 of 4 last saved {local(1772366520)}", "0.5 \u00b5m per pixel",
        "Weights in use tumor: version 1 Dice held out 0.733",
        "DONE. Started 2026-03-02 11:00, ended 2026-03-02 11:20.",
        "RUNNING: is not done yet. Started 2026-03-02 11:21.", "stroma lymphocytic infiltrate gland",
    ):  # fmt: skip
        assert says in page.words
    times = {datetime.fromisoformat(value).timestamp() for value in page.values("datetime")}
    assert {1772300000, 1772366460, 1772366520} < times


def named(state, name):
    """The state with ``name`` wherever a name, a text or a line comes from outside."""
    info, objects, training, scoring = copy.deepcopy(state)
    one = objects["a"]
    one["image"]["ext"] = name
    # of one time, because their order follows from their names
    one["labels"] = dict.fromkeys(("final", name), one["labels"]["final"])
    one["image"]["info"]["entropy"]["error"] = name
    model = info["models"]["tumor"] | {"classes": [name, "tumor"], "weights_sha256": name}
    versions = info["train_stats"]["tumor"]
    versions["versions"][1] |= {"version": name, "dice": name, "tiles": name, "added": name}
    info |= {"version": name, "models": {name: model}, "train_stats": {name: versions}}
    training |= {"status": name, "start_ts": name, "details": deque([name, name])}
    scoring |= {"status": name, "end_ts": name, "details": [name]}
    other = objects["d"]
    other["image"]["info"] = dict.fromkeys(METHODS, one["image"]["info"]["entropy"])
    return [info, {name: one, f"{name}2": other}, training, scoring]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_never_markup(state, name):
    page = shown(named(state, name))
    assert page.elements == shown(named(state, "zzz")).elements
    assert f"{name}{name}" in page.of("th", scope="row")
    assert name in page.of("bdi")
    assert page.of("pre") == [f"{name}\n{name}\n", name]
    assert page.of("small", **{"class": "bad"}) == [name.strip()] * 2
    hostile = Page(start_page_without_names(name))
    assert hostile.of("code") == [name]
    assert hostile.elements == Page(start_page_without_names(ADDRESS)).elements


def test_characters_that_no_page_can_hold_are_shown_by_their_number(state):
    names = ["nul\x00 esc\x1b[1m bell\x07", "half \ud83d", "next\x85line \x9f"]
    html = start_page(state[0], dict.fromkeys(names, state[1]["b"]), None, None, ADDRESS)
    page = Page(html.encode("utf-8").decode("utf-8"))
    assert {row[0] for row in page.tables["images"]} == {
        r"nul\x00 esc\x1b[1m bell\x07.ndpi",
        r"half \ud83d.ndpi",
        r"next\x85line \x9f.ndpi",
    }
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", html)


@pytest.mark.parametrize("known", [True, False])
def test_nothing_runs_and_nothing_comes_from_elsewhere(state, known):
    html = start_page(*state, ADDRESS) if known else start_page_without_names(ADDRESS)
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>\n")
    assert re.findall(r"https?://[^\s<]*", html) == [ADDRESS]
    tags = [tag for tag, _ in page.elements]
    assert tags.count("style") == 1
    assert not {"script", "iframe", "object", "embed", "form", "base", "img", "button", "input"} & set(tags)
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "srcset", "action")}
    assert not re.search(r"url\(|@import", page.of("style")[0])
    within = [link for link in page.values("href") if link.startswith("#")]
    assert set(within) <= {f"#{name}" for name in page.values("id")}
    assert set(page.values("href")) - set(within) == {"/docs", "/info/", "/logs/", "data:,"}


def test_page_for_strangers_says_how_to_come_in_and_nothing_else(state, root):
    page = Page(start_page_without_names(ADDRESS))
    assert page.of("code") == [ADDRESS]
    assert page.of("h2") == ["In QuPath"]
    assert page.of("table") == page.of("pre") == page.of("time") == []
    assert len(page.of("li")) == 5
    assert shown(state).of("li") == page.of("li")
    menus = [text for text in page.of("em") if ">" in text]
    assert "Edit > Preferences > MONAI Label > Server URL" in menus
    # as the documentation names them
    told = "".join((root / name).read_text(encoding="utf-8") for name in ("docs/label.md", "scripts/label.sh"))
    assert [menu for menu in menus if menu not in told] == []


def test_two_models_are_shown_each_with_its_classes_and_versions(state):
    info = state[0]
    info["models"]["tissue"] = {"classes": ["tumor", "stroma"], "mpp": 0.25, "weights_sha256": "a" * 64}
    info["train_stats"]["tissue"] = {"versions": [{"version": 7, "in_use": True, "from": "tissue.pt"}]}
    page = shown(state)
    assert page.of("h3")[-2:] == ["tumor", "tissue"]
    assert "Weights in use tumor: version 1 Dice held out 0.733 tissue: version 7" in page.words
    # of the last table of versions
    assert page.tables["versions"] == [["Version 7 to start from", DASH, DASH, DASH, DASH, "in use", DASH]]
    assert page.of("code") == [ADDRESS, HASH[:12], "a" * 12]


def test_fault_of_all_methods_is_said_once(state):
    scored = state[1]["d"]["image"]["info"]
    scored["epistemic"] = scored["entropy"]
    page = shown(state)
    assert page.tables["images"][3] == ["d.png", "not labelled", "d.png: is broken; delete it."]
    assert page.values("colspan") == ["2"]
    scored["epistemic"] = scored["entropy"] | {"error": "another"}
    page = shown(state)
    assert page.tables["images"][3] == ["d.png", "not labelled", "d.png: is broken; delete it.", "another"]


@pytest.mark.parametrize("more", [0, 1, 1234])
def test_many_images_are_shortened_and_counted(state, more):
    names = [f"slide {number:04}" for number in range(500 + more)]
    page = shown([state[0], dict.fromkeys(reversed(names), state[1]["b"]), None, None])
    assert [row[0] for row in page.tables["images"]] == [f"{name}.ndpi" for name in names[:500]]
    assert (f"and {more} more" in page.words) == (more > 0)
    assert f"Labelled {len(names)} of {len(names)}" in page.words


def test_server_that_has_done_nothing_yet_says_so():
    words = shown([{"version": "1", "models": {"tumor": {}}, "train_stats": {}}, {}, None, None]).words
    for says in ("Labelled 0 of 0", "Last training none yet", "Last scoring none yet", "No versions yet"):
        assert says in words
    assert "None yet. Put slides or pictures into the server's folder" in words
    assert shown([{}, {}, None, None]).of("code") == [ADDRESS]


@pytest.mark.parametrize("odd", [None, "", "odd", -1, 7, 1e300, float("nan"), float("inf"), True, [1], {"score": "1"}])
def test_what_a_client_may_have_written_does_not_break_the_page(state, odd):
    objects = {
        "0": odd, "1": {"image": odd, "labels": odd}, "2": {"image": {"info": odd, "ext": odd}},
        "3": {"image": {"info": {"entropy": odd, "epistemic": {"score": odd, "error": odd}}}, "labels": {"final": odd}},
        "4": {"labels": {"final": {"info": odd}, "original": {"info": {"ts": odd, "version": odd}}}},
    }  # fmt: skip
    for name in ("dice", "dice_before", "tiles", "images", "added", "held_out_tiles", "in_use"):
        state[0]["train_stats"]["tumor"]["versions"][1][name] = odd
    page = shown([state[0], objects, {"status": odd, "start_ts": odd}, {"end_ts": odd, "details": None}])
    assert [row[0] for row in page.tables["images"]] == ["0", "1", f"2{odd if isinstance(odd, str) else ''}", "3", "4"]
    assert {len(row) for row in page.tables["images"]} <= {3, 4}
    assert len(page.tables["versions"]) == 3
    assert not re.search(r"\b(None|nan|inf)\b", page.words)


def test_lines_are_the_last_and_short_and_without_colours_of_a_terminal(state):
    lines = [f"line {number}" for number in range(30)]
    state[2]["details"] = deque([*lines, "\x1b[32mgreen\x1b[0m", "x" * 401])
    pre = shown(state).of("pre")[0]
    assert pre.splitlines() == [*lines[-18:], "green", "x" * 400 + "\u2026"]


STATUSES = {"SUBMITTED": "waits", "RUNNING": "not done", "ERROR": "last lines", "STOPPED": "stopped", "DONE": "Started"}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_is_explained(state, status):
    state[2]["status"], state[3] = status, None
    page = shown(state)
    assert [STATUSES[status] in text for text in page.of("p") if text.startswith(status)] == [True]
    assert len(page.values("open")) == (status != "DONE")


def test_times_are_those_of_the_server(state, monkeypatch):
    monkeypatch.setenv("TZ", "IST-5:30")
    time.tzset()
    try:
        page = shown(state)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert page.tables["versions"][2][-1] == "2026-03-01 17:30"
    assert page.tables["images"][0][1].startswith("final, version 3, 2026-03-01 17:31")
    assert "Started 2026-03-02 11:00" in page.words
    assert {value[-6:] for value in page.values("datetime")} == {"+05:30"}
