#!/usr/bin/env bash
# Set up and run the tests, two at a time; arguments go to pytest, such as -k network. The
# commands of the documentation and what takes long have scripts of their own, test_*.sh.
# Tests on real slides and BCSS regions need LIGHTMUSEG_DATA, the folder that holds them; without it they are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
[ $# -eq 0 ] || exec .venv/bin/python -m pytest "$@"
exec bash scripts/test_lanes.sh 2
