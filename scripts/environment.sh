# Sourced by the scripts: a virtual environment in the checkout if none is active, with the tested
# versions and the package installed. An active environment is used as it is, and completed by pip.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
  if [ ! -x .venv/bin/python ]; then
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
      echo "error: ${PYTHON:-python3} is older than Python 3.11; name a newer one, as in PYTHON=python3.12 bash $0" >&2
      exit 2
    }
    echo "making a virtual environment in .venv"
    "${PYTHON:-python3}" -m venv .venv
  fi
  source .venv/bin/activate
fi
python -m pip install --quiet --disable-pip-version-check -r requirement.txt
python -m pip install --quiet --disable-pip-version-check -e .
