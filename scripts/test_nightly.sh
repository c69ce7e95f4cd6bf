#!/usr/bin/env bash
# What is run at full size: the commands of the documentation on whole regions, the variants of the bundle that no
# other suite trains, 200 slides of which workers are killed, 20 kills of one slide, power failures, damaged slides,
# wrong scales, hostile requests to the label server, and the steps of the Dockerfile by pip. Needs what
# scripts/test_cohort.sh and scripts/test_label.sh need. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
# without it the tests of Slurm are skipped
bash scripts/install_debian.sh munge slurm-client slurmctld slurmd || [ $? = 3 ]
export LIGHTMUSEG_TEST_SIZE=full
.venv/bin/python -m pytest -m "nightly and runtimes" tests/runtimes
exec .venv/bin/python -m pytest -m "nightly or slow" -n 2 --dist loadscope --no-loadscope-reorder \
    tests/test_readme.py tests/bundle/test_variants.py tests/cohort tests/deploy tests/label tests/scripts tests/slides "$@"
