#!/usr/bin/env bash
# Run the tests by several processes, and beside them the runtimes by one of their own: a run of these with all other tests
# ended in a segmentation fault in one of the libraries. What the runtimes say is shown when they have ended.
#   bash scripts/test_lanes.sh PROCESSES [OPTIONS OF PYTEST FOR THE OTHER TESTS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# threads that wait leave their core to the other process
export OMP_WAIT_POLICY=PASSIVE
said=$(mktemp)
trap 'rm -f "$said"' EXIT
(
    status=0
    OMP_NUM_THREADS=1 .venv/bin/python -m pytest -m "runtimes and not nightly" tests/runtimes > "$said" 2>&1 || status=$?
    printf '\n%s\n' "$(cat "$said")"
    exit "$status"
) &
status=0
.venv/bin/python -m pytest -n "$1" --dist loadscope --no-loadscope-reorder "${@:2}" || status=$?
wait $! || status=$?
exit "$status"
