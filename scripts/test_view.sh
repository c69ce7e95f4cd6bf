#!/usr/bin/env bash
# Click through the page of 'lightmuseg view' in Chromium without a window (two minutes on two cores). Installs Debian's
# chromium and chromium-driver where they are missing and this is root; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
bash scripts/install_debian.sh chromium chromium-driver fonts-dejavu-core
exec .venv/bin/python -m pytest -m view tests/view "$@"
