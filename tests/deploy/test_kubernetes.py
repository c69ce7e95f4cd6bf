"""The Kubernetes job by the schemas of Kubernetes, and against the image and the command."""

import inspect
import re

import kubernetes_validate
import pytest
import yaml

# the oldest in which backoffLimitPerIndex needs no switch, and the newest known here
VERSIONS = ("1.33", kubernetes_validate.latest_version())


@pytest.fixture(scope="module")
def job(root):
    return yaml.safe_load((root / "deploy" / "kubernetes-job.yaml").read_text())


@pytest.fixture(scope="module")
def container(job):
    (one,) = job["spec"]["template"]["spec"]["containers"]
    return one


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_key(job, version):
    kubernetes_validate.validate(job, version, strict=True)


def test_a_key_that_is_misspelt_would_be_found(job):
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**job, "spec": {**job["spec"], "completionsMode": "Indexed"}}, "1.33", strict=True
        )


def test_the_shards_are_as_many_as_the_pods(job, container):
    shard = container["args"][container["args"].index("--shard") + 1]
    assert shard == f"$(JOB_COMPLETION_INDEX)/{job['spec']['completions']}"
    assert job["spec"]["completionMode"] == "Indexed"


def test_the_user_is_the_images(job, root):
    user = re.search(r"^USER (\d+)", (root / "deploy" / "Dockerfile").read_text(), re.MULTILINE).group(1)
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(user)


def test_every_mount_has_its_volume(job, container):
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_command_knows_the_options(container):
    pytest.importorskip("lightmuseg.cohort")
    from lightmuseg.cli import COMMANDS

    options = {word.removeprefix("--") for word in container["args"] if word.startswith("--")}
    assert options <= set(inspect.signature(COMMANDS[container["args"][0]]).parameters)
