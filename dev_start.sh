#!/usr/bin/env bash
# Sets everything up, then starts Triton (embedded, CPU) and the gateway in the foreground. Options go to `modelctl up`.
#   ./dev_start.sh [--model NAME...]
#   ./dev_start.sh --setup-only local|export|dev     only install what requirements/<which>.txt locks
#     export: with transformers and PyTorch, for `modelctl add` from checkpoints; dev: all of it, and what tests need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
  echo "dev_start.sh: $1" >&2
  exit 1
}

is_usable() {
  "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' >/dev/null 2>&1
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3 python; do
    if is_usable "$candidate"; then
      echo "$candidate"
      return
    fi
    [ "$candidate" != "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not Python 3.11 or 3.12: point it at one that is."
  done
  fail "Python 3.11 or 3.12 is needed and none was found: install one, or point to it by PYTHON=/path/to/python3.12."
}

make_environment() {
  if [ -d .venv ] && is_usable .venv/bin/python; then
    return
  fi
  local python
  python=$(find_python)
  echo "Environment: .venv of $("$python" --version)"
  rm -rf .venv
  "$python" -m venv .venv >/dev/null 2>&1 ||
    fail "$python cannot make environments: install its venv package (Debian: apt-get install python3-venv)."
}

install_packages() {
  local which=$1 lock wanted
  if [ "$which" = local ] && [ -f .venv/.installed ]; then
    which=$(cut -d ' ' -f 1 .venv/.installed) # what is there holds all of local.txt, and is wanted still
  fi
  lock="requirements/$which.txt"
  wanted=$(cat "$lock" pyproject.toml | sha256sum | cut -d ' ' -f 1)
  if grep -qsx -e "$which $wanted" .venv/.installed; then
    return
  fi
  echo "Packages: $lock"
  rm -f .venv/.installed
  if ! [ -x .venv/bin/uv ]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt ||
      fail "uv could not be installed: check the connection to your Python package index."
  fi
  .venv/bin/uv pip sync --quiet --python .venv/bin/python --require-hashes "$lock" ||
    fail "the packages of $lock could not be installed: the lines above say why."
  .venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable . ||
    fail "the project itself could not be installed: the lines above say why."
  if [ "$which" != local ]; then
    install_torch
  fi
  echo "$which $wanted" >.venv/.installed
}

# By pip, which takes a CPU build where an index offers one; uv would take several GB of CUDA libraries.
install_torch() {
  echo "Packages: PyTorch"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/torch.txt ||
    fail "PyTorch could not be installed: install $(cat requirements/torch.txt) into .venv by hand, see pytorch.org."
}

set_up() {
  [ -f "requirements/$1.txt" ] || fail "there is no requirements/$1.txt: give local, export or dev."
  make_environment
  install_packages "$1"
}

if [ "${1:-}" = --setup-only ]; then
  set_up "${2:-local}"
else
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "the embedded Triton needs Linux on x86-64, this is $(uname -s) on $(uname -m): use Docker Compose (docs/containers.md)."
  set_up local
  exec .venv/bin/python -m modelctl up "$@"
fi
