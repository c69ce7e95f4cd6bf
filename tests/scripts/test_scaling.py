"""The report on throughput says what its figures say, and the page of the docs is the one that they make."""

import dataclasses
import json
import re
import sys

import pytest

STAGES = ("planning", "reading", "network", "merging", "writing", "checking", "hashing")


@pytest.fixture(scope="module")
def modules(root):
    """The script, its report and its model."""
    sys.path.insert(0, str(root / "scripts" / "benchmark"))
    import scaling
    import scaling_report
    import throughput

    yield scaling, scaling_report, throughput
    sys.path.remove(str(root / "scripts" / "benchmark"))


def measured(name, tiles, seconds):
    """A slide whose stages take 1 ms a tile, writing 10 ms and 0.2 s for a picture; half a second goes elsewhere."""
    stages = {stage: tiles * (0.01 if stage == "writing" else 0.001) for stage in STAGES}
    stages["writing"] += 0.2
    stages["slide"] = sum(stages.values()) + 0.5
    stages |= {"writing: regions": tiles * 0.006, "writing: overlay": 0.2}
    costs = {
        stage: {"seconds": value + seconds, "cpu": value, "read": 1e5 * tiles, "written": 1e4 * tiles}
        for stage, value in stages.items()
    }
    return {"slide": name, "tiles": tiles, "gigapixels": 0.02, "bytes": 10**6, "peak MiB": 1000, "costs": costs}


@pytest.fixture(scope="module")
def slides(modules):
    names = {"4096px-10pct.tif": 20, "4096px-50pct.tif": 100, "8192px-50pct.tif": 400}
    return modules[0].one_of_each([measured(name, tiles, 0.0) for name, tiles in names.items()])


@pytest.fixture(scope="module")
def folder(modules, slides, tmp_path_factory):
    """The report on three slides."""
    scaling, report, _ = modules
    costs = dataclasses.asdict(scaling.fitted_costs(slides))
    check = {"network": "network", "workers": 2, "cores": 2, "slide": "8192px-50pct.tif", "measured": 0.1,
             "predicted": 0.12, "limit": "cores", "error": 0.2, "peak MiB": 1000}  # fmt: skip
    docs = tmp_path_factory.mktemp("docs")
    content = {
        "processor": "a processor", "options": {"sides": [4096, 8192], "rounds": 1, "overlap": 0.25},
        "costs": {"network": costs}, "measured": {"network": slides}, "checked": "8192px-50pct.tif", "checks": [check],
    }  # fmt: skip
    report.write_report(docs, content)
    return docs


def test_the_model_knows_every_stage_of_a_slide(modules, root):
    stages = set(re.findall(r'self\._timed\("(\w+)"\)', (root / "lightmuseg" / "slides" / "job.py").read_text()))
    # one is reading, network and merging, the other maps and pictures
    assert stages - {"segmenting", "writing"} < set(modules[2].PARTS)


def test_runs_of_a_slide_become_their_median_and_what_no_stage_took(modules):
    runs = [measured("4096px-10pct.tif", 20, seconds) for seconds in (0, 9, 1)]
    (one,) = modules[0].one_of_each(runs)
    assert one["costs"]["reading"]["seconds"] == pytest.approx(0.02 + 1)
    assert one["costs"]["other"]["cpu"] == pytest.approx(0.5)


def test_the_fit_meets_figures_that_are_straight(modules, slides):
    costs = modules[0].fitted_costs(slides)
    slide = modules[2].Slide(0.02, 1000, 0.3)
    assert costs.cpu["maps"].of(slide) == pytest.approx(10, rel=1e-3)
    assert costs.cpu["pictures"].of(slide) == pytest.approx(0.2, rel=1e-3)
    assert costs.cpu["other"].of(slide) == pytest.approx(0.5, rel=1e-3)
    assert costs.read["reading"].of(slide) == pytest.approx(1e8, rel=1e-3)
    assert set(costs.cpu) == {*STAGES, "maps", "pictures", "other"} - {"writing"}


def test_the_page_names_the_error_and_the_stage_that_takes_longest(folder):
    text = " ".join((folder / "scaling.md").read_text().split())
    assert "The largest error here is 20%." in text
    assert "Of the CPU's work the longest is writing the map and its polygons." in text
    assert "**No GPU was measured**" in text
    assert (folder / "images" / "scaling.png").stat().st_size > 10_000


def test_the_page_of_the_docs_is_made_of_its_figures(modules, root, tmp_path):
    content = json.loads((root / "docs" / "benchmarks" / "scaling.json").read_text())
    modules[1].write_report(tmp_path, content)
    assert (tmp_path / "scaling.md").read_text() == (root / "docs" / "scaling.md").read_text()
    assert json.loads((tmp_path / "benchmarks" / "scaling.json").read_text()) == content


def test_no_size_that_the_fit_has_seen_is_checked(root):
    content = json.loads((root / "docs" / "benchmarks" / "scaling.json").read_text())
    *fitted, checked = content["options"]["sides"]
    assert len(fitted) >= 2
    assert checked not in fitted
    assert content["checked"].startswith(f"{checked}px")
    # nor is any error but a check's in the text
    assert re.search(r"largest error here is \d+%", (root / "docs" / "scaling.md").read_text())
