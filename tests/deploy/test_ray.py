"""The example of a Ray cluster by Ray's own checks, and its commands by Ray's own command line."""

import inspect
import re
import shlex

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
    assert [*map(str, stop)] == ["~/venv/bin/ray", "stop"]
    assert begin[:2] == ["~/venv/bin/ray", "start"]
    # parsed, not called
    start.make_context("start", begin[2:])


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
