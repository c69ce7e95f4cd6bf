#!/usr/bin/env bash
# Whole trainings, by one process and by several, that are killed, go on and meet faults (ten minutes on two cores).
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -m training tests/bundle tests/label "$@"
