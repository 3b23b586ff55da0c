#!/usr/bin/env bash
# Run the experiments of the published tables on the released MNIST zoo (get it by: bash scripts/download_zoo.sh mnist).
# Usage: bash scripts/reproduce_mnist.sh [ARGUMENTS OF nfn_transformer/reproduce.py]
# Needs bash 4 or newer.
set -euo pipefail
exec bash "$(dirname "$0")/reproduce_zoo.sh" mnist "$@"
