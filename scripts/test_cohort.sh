#!/usr/bin/env bash
# Cohorts of real pixels whose workers and drivers are killed and whose disk is full, by Ray, by Slurm and without.
# Needs LIGHTMUSEG_DATA, the folder of real slides and regions, and root, to mount a disk and to start Slurm, which is
# installed where it is missing and this is Debian. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
# without it the tests of Slurm are skipped
bash scripts/install_debian.sh munge slurm-client slurmctld slurmd || [ $? = 3 ]
exec .venv/bin/python -m pytest -m "cohort and not nightly" tests/cohort tests/deploy "$@"
