"""The Kubernetes job by the schemas of Kubernetes, and against the image and the command."""

import inspect
import os
import re
import subprocess

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


@pytest.fixture
def words_of(container, stand_in):
    """The words after ``lightmuseg`` in the pod of an index, as its shell makes them."""

    def call(index):
        environment = {"PATH": f"{stand_in}{os.pathsep}{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index)}
        command = [*container["command"], *container["args"]]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[2:]

    return call


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_key(job, version):
    kubernetes_validate.validate(job, version, strict=True)


def test_a_key_that_is_misspelt_would_be_found(job):
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(
            {**job, "spec": {**job["spec"], "completionsMode": "Indexed"}}, "1.33", strict=True
        )


def test_the_pods_take_every_shard_once(job, words_of):
    completions = job["spec"]["completions"]
    assert job["spec"]["completionMode"] == "Indexed"
    shards = [words[words.index("--shard") + 1] for words in map(words_of, range(completions))]
    assert shards == [f"{number}/{completions}" for number in range(1, completions + 1)]


def test_the_user_is_the_images(job, root):
    user = re.search(r"^USER (\d+)", (root / "deploy" / "Dockerfile").read_text(), re.MULTILINE).group(1)
    assert job["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(user)


def test_the_pods_have_no_more_rights_than_they_need(job, container):
    spec = job["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert "ports" not in container
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
    assert all("hostPath" not in volume for volume in spec["volumes"])


def test_every_mount_has_its_volume(job, container):
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_the_command_knows_the_options(words_of):
    pytest.importorskip("lightmuseg.cohort")
    from lightmuseg.cli import COMMANDS

    command, *words = words_of(0)
    options = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert options <= set(inspect.signature(COMMANDS[command]).parameters)
