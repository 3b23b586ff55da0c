#!/usr/bin/env bash
# Train Transformer-NFN on the bundled zoo and print its test tau: some minutes on two CPU cores.
# Further flags are passed on: bash scripts/quickstart.sh --enc_mode mlp --epochs 20
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
python nfn_transformer/main.py --dataset digits --data_path data/digits_transformers.zip --seed 1 "$@"
