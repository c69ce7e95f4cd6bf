"""Several nodes and several coordinators share one cohort through one folder."""

import csv
import json
import secrets
import subprocess
import sys
from collections import Counter

import pytest

pytestmark = pytest.mark.cohort
SLIDES = 16
LIMIT_S = 600
TWO_NODES = """
from ray.cluster_utils import Cluster
node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
cluster.wait_for_nodes()
print(f"address={cluster.address}", flush=True)
input()
cluster.shutdown()
"""


@pytest.fixture
def notes(tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def noted(notes):
    """How often each batch was given to a network, and which files say so."""
    files = list(notes.iterdir())
    return Counter(batch for path in files for batch in path.read_text().split()), {path.name for path in files}


def statuses(folder):
    with open(folder / "cohort.csv", newline="", encoding="utf-8") as file:
        return Counter(row["status"] for row in csv.DictReader(file))


def batches_of_all(command, slides, notes, output):
    """The batches of a run by one process, none of which another run may leave out."""
    assert command(slides, "--output", output, runtime=f"Counted('{notes}')").wait(LIMIT_S) == 0
    once, _ = noted(notes)
    for path in notes.iterdir():
        path.unlink()
    return once


def test_two_coordinators_at_one_folder_do_no_slide_twice(real_slides, command, contents, notes, tmp_path):
    slides = tmp_path / "slides"
    real_slides(slides, SLIDES)
    once = batches_of_all(command, slides, notes, tmp_path / "once")
    words = (slides, "--output", tmp_path / "out")
    both = [command(*words, runtime=f"Counted('{notes}', 2)", said=tmp_path / f"said {n}.txt") for n in range(2)]
    assert [process.wait(LIMIT_S) for process in both] == [0, 0]
    batches, processes = noted(notes)
    assert batches == once
    assert len(processes) == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    assert statuses(tmp_path / "out") == {"done": SLIDES}


@pytest.fixture
def two_nodes(override, monkeypatch):
    """The address of a Ray cluster of two nodes on this machine, with one core each."""
    pytest.importorskip("ray")
    # only this test's processes may use it
    for name, value in {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    process = subprocess.Popen(
        [sys.executable, "-c", TWO_NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    line = ""
    while "address=" not in line:
        line = process.stdout.readline()
        assert line, "the cluster did not begin"
    yield line.strip().partition("address=")[2]
    process.communicate("end\n", timeout=60)


def test_two_ray_nodes_share_a_cohort(real_slides, two_nodes, command, contents, notes, tmp_path):
    slides = tmp_path / "slides"
    real_slides(slides, SLIDES)
    once = batches_of_all(command, slides, notes, tmp_path / "once")
    words = (slides, "--output", tmp_path / "out", "--engine", "ray", "--address", two_nodes)
    process = command(*words, runtime=f"Counted('{notes}', 2)")
    assert process.wait(LIMIT_S) == 0, (tmp_path / "said.txt").read_text()[-2000:]
    batches, processes = noted(notes)
    assert batches == once
    assert len({name.partition("-")[0] for name in processes}) == 2
    assert contents(tmp_path / "out") == contents(tmp_path / "once")
    assert statuses(tmp_path / "out") == {"done": SLIDES}


def test_the_real_network_by_ray_gives_what_segment_gives(real_slides, run, root, tmp_path):
    pytest.importorskip("ray")
    paths = real_slides(tmp_path / "slides", 3)
    shared = ("--bundle", root / "bundle", "--no-tissue-mask")
    call = ("python", "-m", "lightmuseg.cli")
    status, _, stderr = run(
        *call, "cohort", tmp_path / "slides", "--output", tmp_path / "out", "--engine", "ray", *shared
    )
    assert status == 0, stderr
    record = json.loads((tmp_path / "out" / paths[0].parent.name / paths[0].stem / "run.json").read_text())
    # in bfloat16 the last bits hang on how many threads share a sum
    threads = str(record["model"]["threads"])
    status, _, stderr = run(
        *call, "segment", *paths, "--output", tmp_path / "segment", *shared, OMP_NUM_THREADS=threads
    )
    assert status == 0, stderr
    for path in paths:
        ours = tmp_path / "out" / path.parent.name / path.stem
        for name in ("classes.tif", "regions.geojson", "measurements.csv", "overlay.png"):
            assert (ours / name).read_bytes() == (tmp_path / "segment" / path.stem / name).read_bytes()
