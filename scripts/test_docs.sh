#!/usr/bin/env bash
# Run every command of the README and the docs on a clean copy of the repository in an environment of its own.
# Commands on real regions need LIGHTMUSEG_DATA, the folder that holds them; without it they are skipped.
# Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -m "slow and not nightly" tests "$@"
