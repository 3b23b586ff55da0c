#!/usr/bin/env bash
# The README's table: three encoders on the bundled zoo with the published settings, seeds 1, 2 and 3.
# One seed means one split for all three. Usage: bash scripts/quickstart_comparison.sh [FOLDER FOR THE RUNS]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
runs=${1:-runs/quickstart_comparison}

declare -A settings=(
  [inv]="--enc_mode inv --classifier_nfn_channels 10,10 --transformers_nfn_channels 10"
  [mlp]="--enc_mode mlp --classifier_nfn_channels 50,50 --transformers_nfn_channels 50
         --num_out_classify 50 --num_out_embedding 50 --num_out_encoder 50"
  [statnn]="--enc_mode statnn --cls_mode statnn --classifier_nfn_channels 256 --transformers_nfn_channels 256
            --num_out_classify 256 --num_out_embedding 64 --num_out_encoder 256"
)
for mode in inv mlp statnn; do
  for seed in 1 2 3; do
    # shellcheck disable=SC2086 # the settings are words
    python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip \
      ${settings[$mode]} --seed "$seed" --out_dir "$runs/$mode-seed$seed" >"/dev/null"
    echo "$mode seed $seed: $(python -c "
import json, sys
results = json.load(open(sys.argv[1]))
print(f\"test tau {results['test']['tau']:.4f}, best epoch {results['best_epoch']}\")" "$runs/$mode-seed$seed/results.json")"
  done
done
