"""The Slurm script by shellcheck, by bash, and by a Slurm that is started for it."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

SIDE = 700
SLURM = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_MAX": "4",
         "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_CPUS_PER_TASK": "6"}  # fmt: skip


@pytest.fixture
def bash(root, stand_in, tmp_path):
    """The script with words and variables, as (exit status, stdout lines, stderr)."""

    def call(*words, **variables):
        path = f"{stand_in}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "SLURM_SUBMIT_DIR": str(tmp_path), **SLURM, **variables}
        command = ["bash", root / "deploy" / "slurm.sh", *words]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return call


def test_shellcheck_finds_nothing(root):
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), root / "deploy" / "slurm.sh"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_a_task_takes_its_shard_and_its_own_cores_where_it_was_submitted(bash, tmp_path):
    status, lines, _ = bash("/slides/of day 1", "/results", "--overlap", "0")
    assert status == 0
    words = ["/slides/of day 1", "--output", "/results", "--shard", "2/4", "--workers", "6", "--overlap", "0"]
    assert lines == [str(tmp_path), "6", "cohort", *words]


def test_the_home_that_is_named_goes_before_the_folder_of_the_submission(bash, root):
    assert bash("slides", "results", LIGHTMUSEG_HOME=str(root))[1][0] == str(root)


def test_an_array_with_gaps_is_refused_since_slides_would_be_missed(bash):
    status, lines, stderr = bash("slides", "results", SLURM_ARRAY_TASK_MAX="6")
    assert (status, lines) == (1, [])
    assert "--array 1 to 6, 4 tasks: give 1-N, whole." in stderr


@pytest.mark.parametrize(("words", "variables", "said"), [
    (["slides"], {}, "give SLIDES and OUTPUT"),
    (["slides", "results"], {"SLURM_ARRAY_TASK_ID": ""}, "submit it by sbatch --array=1-8"),
])  # fmt: skip
def test_what_is_missing_is_told_in_one_line(bash, words, variables, said):
    status, lines, stderr = bash(*words, **variables)
    assert (status, lines, len(stderr.splitlines())) == (1, [], 1)
    assert said in stderr


@pytest.mark.cohort
def test_slurm_gives_each_task_of_the_array_one_shard(root, slurm, stand_in, tmp_path):
    command = ["sbatch", "--array=1-3", "--gres=none", "--cpus-per-task=1", "--mem=1M", "deploy/slurm.sh", "in", "out"]
    logs = submit(root, slurm, stand_in, tmp_path / "logs", command)
    shards = [log.splitlines()[log.splitlines().index("--shard") + 1] for log in logs]
    assert shards == ["1/3", "2/3", "3/3"]


@pytest.mark.cohort
def test_the_command_of_the_readme_makes_each_slide_of_a_cohort_once(root, slurm, data, tmp_path):
    pytest.importorskip("lightmuseg.cohort")
    slides, results, command = tmp_path / "slides", tmp_path / "results", tmp_path / "bin"
    picture = np.asarray(Image.open(next((data / "bcss" / "rgbs").glob("*.png"))).convert("RGB"))
    for number in range(4):
        path = slides / f"patient {number % 2}" / f"{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = np.ascontiguousarray(picture[:SIDE, SIDE * number : SIDE * (number + 1)])
        tifffile.imwrite(path, part, tile=(256, 256), photometric="rgb", compression="adobe_deflate")
    command.mkdir()
    (command / "lightmuseg").write_text(f'#!/bin/sh\nexec {sys.executable} -W ignore -m lightmuseg.cli "$@"\n')
    (command / "lightmuseg").chmod(0o755)
    text = re.search(r"```bash\n(sbatch .+)\n```", (root / "deploy" / "README.md").read_text()).group(1)
    words = [{"SLIDES": slides, "OUTPUT": results}.get(word, word) for word in shlex.split(text)]
    environment = {**slurm, "PYTHONPATH": str(root)}
    submit(root, environment, command, tmp_path / "logs", words)
    made = sorted(results.rglob("run.json"))
    assert [path.parent.relative_to(results).as_posix() for path in made] == [
        "patient 0/0", "patient 0/2", "patient 1/1", "patient 1/3",
    ]  # fmt: skip
    assert {json.loads(path.read_text())["slide"] for path in made} == {str(path) for path in slides.rglob("*.tif")}
    times = [path.stat().st_mtime_ns for path in made]
    submit(root, environment, command, tmp_path / "again", words)
    assert [path.stat().st_mtime_ns for path in made] == times


def submit(root, environment, folder, logs, command):
    """Run an sbatch command with ``lightmuseg`` of a folder, wait for its array, and give what the tasks printed."""
    logs.mkdir()
    path = f"{folder}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        [command[0], "--wait", f"--output={logs}/%a.log", *command[1:]],
        cwd=root, env={**environment, "PATH": path}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    printed = [path.read_text() for path in sorted(logs.glob("*.log"))]
    assert done.returncode == 0, "\n".join([done.stderr, *printed])
    return printed
