#!/usr/bin/env bash
# Cohorts of real pixels whose workers and drivers are killed and whose disk is full, by Ray, by Slurm and without
# (half an hour on two cores). Needs LIGHTMUSEG_DATA, the folder of real slides and regions, and root, to mount a disk and
# to start Slurm, which is installed where it is missing and this is Debian. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v slurmctld >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends munge slurm-client slurmctld slurmd
fi
exec .venv/bin/python -m pytest -m cohort tests/cohort tests/deploy "$@"
