#!/usr/bin/env bash
# Sets everything up, then checks format, lint and types, and runs the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./dev_start.sh --setup-only dev

run() {
  echo "+ $*"
  ".venv/bin/$1" "${@:2}"
}

run ruff format --check .
run ruff check .
run mypy
run python -m pytest "$@"
