#!/usr/bin/env bash
# Check and measure everything on this machine's GPU in under 8 minutes: bash scripts/gpu_report.sh [OUT] [flags].
# OUT (default: gpu_report) gets report.jsonl, a line as each part ends, and report.md. --device cpu --quick runs small.
# It needs Python with torch and this project's libraries; it installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
out=gpu_report
if [ $# -gt 0 ] && [ "${1#--}" = "$1" ]; then out="$1"; shift; fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" scripts/benchmarks/gpu_report.py --out "$out" "$@"
