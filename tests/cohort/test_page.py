"""The commands of the page on cohorts run, and say what the page says."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.cohort


def test_commands_of_the_page(real_slides, root, tmp_path):
    pytest.importorskip("ray")
    text = (root / "docs" / "cohort.md").read_text(encoding="utf-8")
    listed = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    (manifest,) = re.findall(r"```\n(slide,.*?)```", text, re.DOTALL)
    real_slides(tmp_path / "slides", 4)
    (tmp_path / "bundle").symlink_to(root / "bundle")
    said = []
    for number, line in enumerate(listed):
        if "list.csv" in line:
            (tmp_path / "slides" / "list.csv").write_text(manifest)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env={**os.environ, "PATH": path, "PYTHONPATH": str(root)},
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, line + done.stderr[-2000:]
        said.append(done.stdout)
        if number == 0:
            first = {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("run.json")}
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "results").rglob("run.json")} == first
    assert len(first) == 4
    for folder, count in (("results", 4), ("listed", 2), ("by-ray", 4), ("parts", 4)):
        with open(tmp_path / folder / "cohort.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["status"] for row in rows] == ["done"] * count
        assert (tmp_path / folder / "cohort.html").is_file()
