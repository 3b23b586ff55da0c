# Sourced by the scripts: a virtual environment in the checkout if none is active, with the tested
# versions and the package installed. An active environment is used as it is, and completed by pip.
# What is installed is noted there, so that the next start needs neither pip nor a network.
if [ -z "${VIRTUAL_ENV:-}" ] && [ -z "${CONDA_PREFIX:-}" ]; then
  if [ ! -x .venv/bin/pip ]; then
    echo "making a virtual environment in .venv"
    "${PYTHON:-python3}" -m venv --clear .venv || {
      echo "error: ${PYTHON:-python3} -m venv failed; on Debian and Ubuntu it needs the package python3-venv" >&2
      exit 2
    }
  fi
  source .venv/bin/activate
fi
python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: $(command -v python) is older than Python 3.11; name a newer one, as in PYTHON=python3.12 bash $0" >&2
  exit 2
}

# install_once NAME FILE PIP_ARGUMENTS...: run pip unless it has been, for this checkout and these files.
install_once() {
  local note wanted
  note="$(python -c 'import sys; print(sys.prefix)')/.nfn_transformer_$1"
  wanted="$PWD $(cat "$2" setup.py pyproject.toml | cksum)"
  if [ "$(cat "$note" 2>/dev/null)" != "$wanted" ]; then
    shift 2
    if [ "${*: -1}" = . ]; then
      echo "installing the package itself"
    else
      echo "installing what $(basename "${@: -1}") asks for; this can take minutes, and gigabytes where PyTorch brings CUDA"
    fi
    python -m pip install --quiet --disable-pip-version-check "$@"
    echo "$wanted" >"$note"
  fi
}
install_once run requirement.txt -r requirement.txt
install_once package requirement.txt -e .
