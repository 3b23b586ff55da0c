#!/usr/bin/env bash
# Train a predictor on the bundled zoo by the complete encoder and print its test tau: one to two minutes on two CPU cores.
# Further flags are passed on; the published encoder: bash scripts/quickstart.sh --enc_mode inv
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip --seed 1 --enc_mode complete "$@"
