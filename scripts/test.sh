#!/usr/bin/env bash
# Set up and run the tests; arguments go to pytest, such as -k network. The commands of the documentation are another
# script, test_docs.sh.
# Tests on real slides and BCSS regions need LIGHTMUSEG_DATA, the folder that holds them; without it they are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
# A process of their own: a run with all other tests after them ended in a segmentation fault in one of the libraries.
[ $# -gt 0 ] || .venv/bin/python -m pytest -m runtimes tests/runtimes
exec .venv/bin/python -m pytest "$@"
