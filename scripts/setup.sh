#!/usr/bin/env bash
# Make the environment .venv with lightmuseg in it, or do nothing where it is up to date. uv installs where it is on the
# PATH, which takes half a minute; else pip.
#   PYTHON=python3.12 bash scripts/setup.sh     to choose the interpreter
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}

fail() { echo "setup: error: $1" >&2; exit 1; }
command -v "$python" >/dev/null || fail "no $python here; install Python 3.10 to 3.13, or name one with PYTHON=."
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    || fail "$("$python" --version) is not supported; name Python 3.10 to 3.13 with PYTHON=."

state=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; pwd; cat setup.py requirements.txt; } | cksum)
if [ -f .venv/.state ] && [ "$(cat .venv/.state)" = "$state" ]; then
    exit 0
fi

echo "setup: making .venv (1 to 5 minutes, 3 GB with a GPU build of PyTorch)"
rm -rf .venv/.state
"$python" -m venv .venv || fail "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv."
if command -v uv >/dev/null; then
    install=(uv pip install --python .venv/bin/python)
else
    install=(.venv/bin/python -m pip install --disable-pip-version-check)
fi
# The tested versions where they exist; elsewhere what setup.py allows.
if "$python" -c 'import platform, sys
sys.exit(not (sys.version_info >= (3, 11) and sys.platform == "linux" and platform.machine() == "x86_64"))'; then
    "${install[@]}" -r requirements.txt
    "${install[@]}" --no-deps -e .
else
    echo "setup: requirements.txt is for Python 3.11+ on Linux x86-64; taking the newest versions that setup.py allows"
    "${install[@]}" -e '.[test]'
fi
echo "$state" > .venv/.state
