#!/usr/bin/env bash
# Serve a folder of slides and tiles to QuPath by MONAI Label: the network's answers, what to annotate next, training.
#   bash scripts/label.sh STUDIES_DIR [--port 8000] [--host 127.0.0.1] [options of monailabel start_server]
#   bash scripts/label.sh --setup              to make the environment .venv-label only
#   PYTHON=python3.11 bash scripts/label.sh    to choose the interpreter, which must be Python 3.11
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
environment=$repository/.venv-label
python=${PYTHON:-python3}

fail() { echo "label: error: $1" >&2; exit 1; }

set_up() {
    command -v "$python" >/dev/null || fail "no $python here; install Python 3.11, or name one with PYTHON=."
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
        || fail "$("$python" --version) is not what MONAI Label's packages are pinned for; name Python 3.11 with PYTHON=."
    local state
    state=$({ "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; echo "$environment"; cat "$repository/setup.py" "$repository/requirements-label.txt"; } | cksum)
    if [ -f "$environment/.state" ] && [ "$(cat "$environment/.state")" = "$state" ]; then
        return
    fi
    echo "label: making .venv-label (2 to 5 minutes, 4 GB)"
    rm -rf "$environment/.state"
    "$python" -m venv "$environment" || fail "cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv."
    local pip=("$environment/bin/python" -m pip install --quiet --disable-pip-version-check) install
    install=("${pip[@]}")
    if command -v uv >/dev/null; then
        install=(uv pip install --quiet --python "$environment/bin/python")
    fi
    "${install[@]}" -r "$repository/requirements-label.txt" || fail "the packages of requirements-label.txt cannot be installed; see above."
    # uv leaves out the sample apps of monailabel, whose wheel names the folder of its data wrongly
    "${pip[@]}" --no-deps monailabel==0.8.5 pydicom-seg==0.4.1 -e "$repository" || fail "monailabel cannot be installed; see above."
    echo "$state" > "$environment/.state"
}

if [ "${1:-}" = "--setup" ]; then
    set_up
    exit
fi

studies=${1:-}
[ -n "$studies" ] || fail "no folder of slides is given; bash scripts/label.sh STUDIES_DIR."
[ -d "$studies" ] || fail "$studies: is no folder; name the one that holds the slides."
[ -w "$studies" ] || fail "$studies: cannot be written, and labels go there; copy the slides to another folder."
shift
studies_path=$(cd "$studies" && pwd)
host=127.0.0.1 port=8000 more=()
while [ $# -gt 0 ]; do
    case $1 in
        --host | --port)
            [ $# -gt 1 ] || fail "$1: has no value; give --host 127.0.0.1 or --port 8000."
            printf -v "${1#--}" %s "$2"
            shift 2 ;;
        *) more+=("$1"); shift ;;
    esac
done
set_up
"$environment/bin/python" - "$host" "$port" <<'PYTHON' || fail "$host:$port: cannot be listened at, another server may run there; give another --port."
import socket, sys
try:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((sys.argv[1], int(sys.argv[2])))
except (OSError, ValueError, OverflowError):
    sys.exit(1)
PYTHON

cat <<TEXT
label: http://$host:$port serves $studies
  In QuPath, with the extension for MONAI Label: Edit > Preferences > MONAI Label > Server URL: http://$host:$port
  Open a slide of that folder, draw a rectangle, and choose MONAI Label > Annotations: the network's regions appear.
  Correct them, give what is missing its class, and choose MONAI Label > Submit Label.
  MONAI Label > Next Sample/ROI goes where the network is unsure; MONAI Label > Training teaches it what was submitted.
  In a browser: http://$host:$port shows slides, labels, models and trainings; http://$host:$port/docs every request.
TEXT
# Without a GPU its codecs have nothing to load, and would say so at every start: a folder without codecs silences them.
command -v nvidia-smi >/dev/null || export NVIMGCODEC_EXTENSIONS_PATH="$repository/docs"
export LIGHTMUSEG_LABEL_HOSTS="${LIGHTMUSEG_LABEL_HOSTS:-$host,127.0.0.1,localhost}"
export MONAI_ZOO_SOURCE=local
export MONAI_LABEL_DATASTORE_FILE_EXT='["*.png","*.jpg","*.jpeg","*.tif","*.tiff","*.svs","*.ndpi","*.mrxs","*.scn","*.vms","*.bif","*.xml","*.geojson","*.json"]'
# monailabel looks for settings in a file .env of the working folder
cd "$repository"
exec "$environment/bin/python" -W ignore -m monailabel.main start_server --app "$repository/lightmuseg/label" \
    --studies "$studies_path" --host "$host" --port "$port" --uvicorn_app lightmuseg.label.label_server:app \
    --conf bundle "$repository/bundle" "${more[@]}"
