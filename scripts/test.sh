#!/usr/bin/env bash
# Run the whole test suite, complete from a fresh checkout. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_once tests tests/requirement.txt -r tests/requirement.txt
python -m pytest "$@"
