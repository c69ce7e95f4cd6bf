#!/usr/bin/env bash
# Install Debian packages that tests need where they are missing. Where this is no Debian or not root it says which, and
# ends with status 3.
#   bash scripts/install_debian.sh PACKAGE...
set -euo pipefail
missing=()
for package in "$@"; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install_debian: error: not installed: ${missing[*]}; on Debian: apt install ${missing[*]}." >&2
    exit 3
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
