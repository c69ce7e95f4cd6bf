"""The pages of docs/benchmarks are made of their figures, and sessions are kept apart."""

import importlib
import json
import sys

import pytest


@pytest.fixture(scope="module")
def module(root):
    """Import a module of scripts/benchmark."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    yield importlib.import_module
    sys.path.remove(str(root / "scripts" / "benchmark"))


@pytest.fixture(scope="module")
def figures(module):
    return module("figures")


@pytest.mark.parametrize("name", ["network", "slide", "growth", "day"])
def test_a_page_shows_the_figures_beside_it(module, figures, root, name):
    page = (root / "docs" / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")
    content = (root / "docs" / "benchmarks" / f"{name}.json").read_text(encoding="utf-8")
    sessions = json.loads(content)
    assert figures.with_tables(page, module(name).tables, sessions) == page
    assert figures.as_json(sessions) == content


def test_ways_take_turns_and_one_that_fails_is_left_out(figures, capsys):
    order = []

    def way(name, fails=False):
        def measure():
            order.append(name)
            if fails and len(order) > 3:
                raise RuntimeError("no memory")
            return {"seconds": len(order)}

        return measure

    rows = figures.in_turns({"a": way("a"), "b": way("b", True), "c": way("c")}, 3)
    assert order == ["a", "b", "c", "a", "b", "c", "a", "c"]
    assert {name: [row["seconds"] for row in some] for name, some in figures.by_way(rows).items()} == {
        "a": [1, 4, 7], "c": [3, 6, 8],
    }  # fmt: skip
    assert "b: left out: no memory" in capsys.readouterr().err


def test_a_session_takes_the_place_of_one_of_the_same_machine_and_options(figures, tmp_path, capsys):
    (tmp_path / "a.md").write_text(f"# By hand\n\n{figures.MARK}\n\n## Old\n", encoding="utf-8")

    def publish(rounds, seconds):
        rows = [{"way": "a", "seconds": seconds}]
        figures.publish("a", lambda session: [figures.column(session["rows"], "seconds")], rows, {"side": rounds},
                        tmp_path)  # fmt: skip

    for session in ((1000, 1.0), (2, 5.0), (1000, 3.0)):
        publish(*session)
    sessions = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert [(one["options"]["side"], one["rows"][0]["seconds"]) for one in sessions] == [(2, 5.0), (1000, 3.0)]
    text = (tmp_path / "a.md").read_text(encoding="utf-8")
    assert text.startswith(f"# By hand\n\n{figures.MARK}\n\n## {figures.processor()}\n\n")
    assert text.endswith("; side 1,000.\n\n3.0\n")
    assert "Old" not in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("values", "text"),
    [([], ""), ([2.0], "2.0"), ([3.0, 1.0, 2.0], "2.0 (1.0 to 3.0)"), ([1.0, 2.0], "1.5 (1.0 to 2.0)")],
)
def test_a_spread_is_the_median_with_the_least_and_the_most(figures, values, text):
    assert figures.spread(values) == text


def test_ratios_are_of_the_same_round(figures):
    ours, theirs = ([{"seconds": value} for value in values] for values in ((1.0, 2.0), (4.0, 4.0)))
    assert figures.ratios(theirs, ours, "seconds") == [4.0, 2.0]


def test_a_way_that_is_not_known_is_refused(figures):
    assert figures.chosen("b; a", "abc") == ["b", "a"]
    assert figures.chosen("", "abc") == ["a", "b", "c"]
    with pytest.raises(SystemExit, match="--ways d: not known; give some of a; b"):
        figures.chosen("a;d", "ab")
