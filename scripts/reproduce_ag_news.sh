#!/usr/bin/env bash
# Run the experiments of the published tables on the released AG-News zoo (get it by: bash scripts/download_zoo.sh ag_news).
# Usage: bash scripts/reproduce_ag_news.sh [ARGUMENTS OF nfn_transformer/reproduce.py]
# Needs bash 4 or newer.
set -euo pipefail
exec bash "$(dirname "$0")/reproduce_zoo.sh" ag_news "$@"
