"""The example of a Ray cluster by Ray's own checks, and its commands by Ray's own command line."""

import inspect
import os
import re
import secrets
import shlex
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def text(root):
    return (root / "deploy" / "ray-cluster.yaml").read_text()


@pytest.fixture(scope="module")
def util():
    pytest.importorskip("ray")
    return pytest.importorskip("ray.autoscaler._private.util")


@pytest.fixture(scope="module")
def config(text):
    return yaml.safe_load(text)


def test_ray_takes_the_cluster(util, config):
    prepared = util.prepare_config(config)
    util.validate_config(prepared)
    assert prepared["max_workers"] == len(config["provider"]["worker_ips"])


def test_a_key_that_is_misspelt_would_be_found(util, config):
    with pytest.raises(Exception, match="setup_comands"):
        util.validate_config(util.prepare_config({**config, "setup_comands": []}))


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_rays_command_line_knows_the_options(util, config, key):
    from ray.scripts.scripts import start

    stop, begin = (shlex.split(command) for command in config[key])
    assert stop == ["~/venv/bin/ray", "stop"]
    # without it whoever reaches a port runs what he likes
    assert begin[:3] == ["RAY_AUTH_MODE=token", "~/venv/bin/ray", "start"]
    # parsed, not called
    options = start.make_context("start", begin[3:]).params
    assert options["include_dashboard"] is (False if key.startswith("head") else None)
    assert options["dashboard_host"] in ("127.0.0.1", "localhost")


def test_the_token_is_made_once_for_its_owner_alone_and_copied_to_every_machine(config, text, tmp_path):
    pytest.importorskip("ray")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    (making,) = re.findall(r"^#\s+(\(umask .+ray get-auth-token .+)$", text, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    tokens = []
    for _ in range(2):
        subprocess.run(["sh", "-c", making], env={"HOME": str(tmp_path), "PATH": path}, check=True)
        tokens.append((tmp_path / ".ray" / "auth_token").read_text())
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) == 64
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600


def test_what_is_called_on_the_head_uses_the_token(text):
    assert "&& RAY_AUTH_MODE=token ~/venv/bin/lightmuseg cohort" in text


@pytest.mark.cohort
def test_a_cluster_so_begun_lets_nobody_in_without_the_token(config, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(secrets.token_hex(32))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin = re.sub(r"--port=\d+", f"--port={port}", config["head_start_ray_commands"][-1])
    begin = re.sub(r"--autoscaling-config=\S+", "--block --num-cpus=1", begin).replace("~/venv/bin/ray", "exec ray")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    plain |= {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    plain |= {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    begin = re.sub(r"^(\S+) exec ray", r"export \1; exec ray", begin)
    joining = f"import ray; ray.init('127.0.0.1:{port}', log_to_driver=False); print(ray.cluster_resources()['CPU'])"

    def join(**variables):
        command = [sys.executable, "-c", joining]
        return subprocess.run(command, env={**plain, **variables}, capture_output=True, text=True, timeout=120)

    with open(tmp_path / "head.txt", "w") as said:
        head = subprocess.Popen(["sh", "-c", begin], env=plain, stdout=said, stderr=said)
    try:
        for _ in range(60):
            invited = join(RAY_AUTH_MODE="token")
            if invited.returncode == 0 or head.poll() is not None:
                break
            time.sleep(1)
        assert invited.stdout == "1.0\n", invited.stderr + (tmp_path / "head.txt").read_text()
        for variables in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}):
            stranger = join(**variables)
            assert stranger.returncode != 0
            assert stranger.stdout == ""
            assert "token" in stranger.stderr.lower()
    finally:
        head.terminate()
        head.wait(timeout=60)


def test_the_command_that_is_named_knows_its_options(text):
    pytest.importorskip("lightmuseg.cohort")
    from lightmuseg.cli import COMMANDS

    words = shlex.split(re.search(r"lightmuseg (cohort .+?)'$", text, re.MULTILINE).group(1))
    options = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert options <= set(inspect.signature(COMMANDS[words[0]]).parameters)


def test_the_nodes_install_what_the_image_does(root, config):
    image = (root / "deploy" / "Dockerfile").read_text()
    extras = re.search(r"\.(\[.+?])", image).group(1)
    assert f'"$HOME/lightmuseg{extras}"' in config["setup_commands"][-1]
