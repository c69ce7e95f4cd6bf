#!/usr/bin/env bash
# Make the two released models again:
#   bash scripts/train_reference.sh DATA [SEED]
# DATA is the folder that make_reference_data.py describes, with weights/. This gives bundle/output/reference/tumor.pt and
# tissue.pt, to be put into bundle/models as model.pt and tissue.pt, after release_weights.py has given them the figures that
# evaluate_reference.py finds. Both at once take 25 to 50 minutes on two cores with bfloat16; stopped and given again, it goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ $# -ge 1 ] || { echo "train_reference: error: name the folder of the data." >&2; exit 1; }
data=$1
seed=${2:-42}
mpp=0.5
encoder=mobilenet_v2-coral.pth
dataset=bundle/data/reference
out=bundle/output/reference
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
# float32 takes twice as long where a processor, or a GPU, has bfloat16
amp=()
! grep -qsE 'avx512_bf16|amx_bf16' /proc/cpuinfo || amp=(--amp True)
command -v nvidia-smi >/dev/null || export NVIMGCODEC_EXTENSIONS_PATH="$PWD/docs"

lightmuseg prepare demo --output bundle/data/demo
python scripts/make_reference_data.py "$data" "$dataset" --mpp "$mpp"

make() { # name of the model, configs between train.json and reference.json, limits, options of the training
    python -W ignore -m monai.bundle run training \
        --config_file "['bundle/configs/train.json',$2'bundle/configs/reference.json']" --dataset_dir "$dataset" \
        --output_dir "$out/$1-$seed" --encoder_weights "$data/weights/$encoder" --seed "$seed" "${amp[@]}" "${@:4}"
    if [ ! -f "$out/$1.pt" ]; then
        python scripts/release_weights.py "$out/$1-$seed/model.pt" "$out/$1.pt" --name "$1" --licence Apache-2.0 --limits "$3" \
            --dataset "BCSS (regions of three patients), CAMELYON (32 tiles), histolytics (two fields), glass of two slides"
    fi
}

few="Three patients' breast tumors, of one scanner: expect to train on your own. Not for other organs, nor for diagnosis."
# Both at once, as one training is hardly faster on two cores than on one. That more than 3,000 crops help was found for
# tumor; tissue has not been tried.
export OMP_NUM_THREADS=1
mkdir -p "$out"
echo "What the training of tissue says stands in $out/tissue.log."
# a process group of its own, which ends when this script does
set -m
make tissue "'bundle/configs/multiclass.json'," \
    "$few Lymphocytic infiltrate has been seen in one patient, necrosis in one other, stroma in two." --max_epochs 10 >"$out/tissue.log" 2>&1 &
tissue=$!
trap 'kill -- "-$tissue" 2>/dev/null || true' EXIT
make tumor "" "$few"
wait "$tissue" || { tail -n 1 "$out/tissue.log" >&2; exit 1; }
