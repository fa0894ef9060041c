#!/usr/bin/env bash
# Sets everything up, then checks format, lint and types, and runs the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./dev_start.sh --setup-only dev

# Docker Compose, without its engine, reads docker-compose.yml in the tests.
if ! docker compose version >/dev/null 2>&1 && ! command -v docker-compose >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Packages: docker-compose"
    { apt-get update && apt-get install -y --no-install-recommends docker-compose; } >/dev/null 2>&1 || true
  fi
  command -v docker-compose >/dev/null || {
    echo "dev_test.sh: Docker Compose is needed to check docker-compose.yml: install it (Debian: apt-get install docker-compose)." >&2
    exit 1
  }
fi

run() {
  echo "+ $*"
  ".venv/bin/$1" "${@:2}"
}

run ruff format --check .
run ruff check .
run mypy
# Tests wait more than they compute: three files at a time on two cores. Later options win: -n0 for one after the other.
if [ $# -gt 0 ]; then
  run python -m pytest -n 3 --dist loadfile "$@"
else
  run python -m pytest -n 3 --dist loadfile -m "not alone"
  run python -m pytest -m alone
fi
