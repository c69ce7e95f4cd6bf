#!/usr/bin/env bash
# Click through the page of 'lightmuseg view' in Chromium without a window (two minutes on two cores). Installs Debian's
# chromium and chromium-driver where they are missing and this is root; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "test_view: error: chromium and chromedriver are not installed; on Debian: apt install chromium chromium-driver." >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core
fi
exec .venv/bin/python -m pytest -m view tests/view "$@"
