#!/usr/bin/env bash
# Ask MONAI Label's server over HTTP as QuPath does, in the environment that scripts/label.sh makes (ten minutes on two
# cores). Needs Python 3.11 and LIGHTMUSEG_DATA, the folder of real slides and regions; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
exec .venv/bin/python -m pytest -m label tests/label "$@"
