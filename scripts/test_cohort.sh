#!/usr/bin/env bash
# Cohorts of real pixels whose workers and drivers are killed and whose disk is full, by Ray and without (ten minutes on
# two cores). Needs LIGHTMUSEG_DATA, the folder of real slides and regions; the full disk also root, to mount one.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -m cohort tests/cohort tests/deploy "$@"
