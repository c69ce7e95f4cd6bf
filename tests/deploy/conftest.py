"""A Slurm of one node, and a stand-in for the command."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

CONFIG = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={controller}
SlurmdPort={node}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def stand_in(tmp_path):
    """A folder for PATH whose ``lightmuseg`` prints its folder, its threads and its words, one a line."""
    script = tmp_path / "bin" / "lightmuseg"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$PWD" "$OMP_NUM_THREADS" "$@"\n')
    script.chmod(0o755)
    return script.parent


@pytest.fixture(scope="session")
def slurm():
    """The environment of a Slurm of one node with two cores, started for the tests; needs root."""
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here; on Debian: apt install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's node daemon needs root")
    # not pytest's folder, of which nobody but the user may read
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(0o755)
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(host=socket.gethostname(), folder=folder, controller=_free_port(), node=_free_port())
    )
    environment = {**os.environ, "SLURM_CONF": str(config)}
    files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log",
             "seed-file": "munge.seed"}  # fmt: skip
    munged = ["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in files.items())]
    running = []
    try:
        for command in (munged, ["slurmctld", "-D"], ["slurmd", "-D"]):
            with open(folder / f"{command[0]}.out", "w") as output:
                running.append(subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            if command is munged:
                _wait_for((folder / "munge.socket").exists, folder)
        _wait_for(lambda: "idle" in _output(["sinfo", "--noheader", "--format=%t"], environment), folder)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(timeout=30)
        shutil.rmtree(folder)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _output(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout


def _wait_for(ready, folder, seconds=60):
    for _ in range(10 * seconds):
        if ready():
            return
        time.sleep(0.1)
    logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("*.log"))
    raise AssertionError(f"Slurm did not start:\n{logs}")
