#!/usr/bin/env bash
# Sets everything up, then checks format, lint and types, and runs the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./dev_start.sh --setup-only dev

install() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Packages: $1"
    { apt-get update && apt-get install -y --no-install-recommends "$1"; } >/dev/null 2>&1 || true
  fi
  command -v "$1" >/dev/null || {
    echo "dev_test.sh: $2: install it (Debian: apt-get install $1)." >&2
    exit 1
  }
}

# Docker Compose, without its engine, reads docker-compose.yml in the tests; Chromium, without a screen, opens the
# playground; wrk makes the load of benches.
docker compose version >/dev/null 2>&1 || command -v docker-compose >/dev/null ||
  install docker-compose "Docker Compose is needed to check docker-compose.yml"
command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null ||
  install chromium "Chromium is needed to test the playground"
command -v wrk >/dev/null || install wrk "wrk is needed to test the benches"

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
