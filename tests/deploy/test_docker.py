"""The Dockerfile by hadolint, and against what it copies and installs."""

import ast
import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def steps(root):
    """The instructions as (name, words)."""
    text = (root / "deploy" / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def of(steps, name):
    return [words for one, words in steps if one == name]


def copied(steps):
    """What the image has of the repository."""
    return [name for words in of(steps, "COPY") for name in words.split()[:-1]]


def test_the_bundle_is_there_when_the_package_is_built(steps):
    names = [name for name, _ in steps]
    install = next(i for i, (name, words) in enumerate(steps) if name == "RUN" and "pip install" in words)
    assert "bundle bundle" in [words for name, words in steps[:install] if name == "COPY"], names


def test_hadolint_finds_nothing(root):
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), root / "deploy" / "Dockerfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_what_is_copied_is_in_the_repository(root, steps):
    listed = subprocess.run(["git", "ls-files", "--", *copied(steps)], cwd=root, capture_output=True, text=True)
    for name in copied(steps):
        assert any(path == name or path.startswith(f"{name}/") for path in listed.stdout.splitlines()), name


def test_what_is_copied_is_let_through_and_nothing_that_running_makes(root, steps):
    lines = (root / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in lines if re.fullmatch(r"![\w.]+", line)} == set(copied(steps))
    assert {"*", "bundle/data", "bundle/output"} <= set(lines)


def test_the_base_is_the_python_of_the_tested_versions(root, steps):
    (base,) = of(steps, "FROM")
    tested = re.search(r"on Python (3\.\d+)", (root / "requirements.txt").read_text()).group(1)
    assert re.fullmatch(rf"python:{re.escape(tested)}\.\d+-slim-\w+", base)


def test_the_extras_are_those_of_the_package(root, steps):
    known = next(
        [key.value for key in node.value.keys]
        for node in ast.walk(ast.parse((root / "setup.py").read_text()))
        if isinstance(node, ast.keyword) and node.arg == "extras_require"
    )
    (run,) = of(steps, "RUN")
    extras = re.search(r"\.\[(.+?)]", run).group(1).split(",")
    assert set(extras) <= set(known)


def test_the_image_runs_as_nobody_in_particular(steps):
    (user,) = of(steps, "USER")
    assert int(user.split(":")[0]) > 0
    # MONAI cannot be imported where neither the user database nor this tells a name
    assert any("USER=" in words for words in of(steps, "ENV"))
    assert of(steps, "ENTRYPOINT") == ['["lightmuseg"]']


def test_the_container_that_is_shown_may_write_into_tmp_and_the_data_alone(root, steps):
    text = (root / "deploy" / "Dockerfile").read_text()
    words = shlex.split(re.search(r"^#\s+(docker run .+)$", text, re.MULTILINE).group(1))
    assert {"--read-only", "--tmpfs /tmp", "--cap-drop ALL", "--security-opt no-new-privileges", "--network none"} <= {
        *words, *map(" ".join, pairwise(words)),
    }  # fmt: skip
    # where the caches go
    assert any("HOME=/tmp" in words for words in of(steps, "ENV"))
    assert {"--publish", "-p", "--privileged", "--ipc"}.isdisjoint(words)
    assert of(steps, "EXPOSE") == []


@pytest.mark.parametrize(
    "installer",
    [
        pytest.param("uv pip install", marks=pytest.mark.cohort),
        pytest.param("pip install --no-cache-dir", marks=pytest.mark.nightly),
    ],
)
def test_the_steps_make_a_folder_in_which_the_command_works(installer, root, steps, clean_copy, tmp_path):
    """The steps by hand in an environment of their own; PyTorch comes from where pip looks, not from its own index."""
    source, image = clean_copy(tmp_path / "source"), tmp_path / "image"
    image.mkdir()
    for name in copied(steps):
        subprocess.run(["cp", "-r", source / name, image / name], check=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    environment = {**os.environ, "PATH": f"{tmp_path / 'venv' / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=True).stdout.strip()
    environment |= {"PYTHONPATH": "", "VIRTUAL_ENV": str(tmp_path / "venv"), "UV_CACHE_DIR": cache}
    (run,) = of(steps, "RUN")
    install = re.sub(r'--extra-index-url "[^"]+"', "", run)
    assert install != run
    assert install.startswith("pip install --no-cache-dir ")
    install = install.replace("pip install --no-cache-dir", installer, 1)
    words = shlex.split(of(steps, "ENTRYPOINT")[0].strip("[]"))
    for command in (["sh", "-c", install], [*words, "segment", "--help"]):
        done = subprocess.run(command, cwd=image, env=environment, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    done = subprocess.run(["pip", "check"], cwd=image, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
