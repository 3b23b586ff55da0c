#!/usr/bin/env bash
# Run the whole test suite, complete from a fresh checkout. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
python -m pip install --quiet --disable-pip-version-check -r tests/requirement.txt
python -m pytest "$@"
