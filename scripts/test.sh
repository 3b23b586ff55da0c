#!/usr/bin/env bash
# Run the whole test suite, complete from a fresh checkout. Further arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
install_once tests tests/requirement.txt -r tests/requirement.txt
# Many tests wait for processes that they start. A file's tests stay together, as they may share what they made.
# In the order of their names the quick ones of zoo/ come last, so that no process waits long for the other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
