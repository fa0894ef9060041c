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
}

# need PACKAGE WHY TEST...: installs a Debian package where the test fails, and ends when it still does.
need() {
  "${@:3}" >/dev/null 2>&1 || install "$1"
  "${@:3}" >/dev/null 2>&1 || {
    echo "dev_test.sh: $1 is needed $2: install it (Debian: apt-get install $1)." >&2
    exit 1
  }
}

has_compose() { docker compose version || command -v docker-compose; }
has_browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

need docker-compose "to check docker-compose.yml" has_compose
need chromium "to test the playground" has_browser
need wrk "to make the load of benches" command -v wrk
need libb64-0d "by the load generator perf_analyzer" .venv/bin/python -c 'import ctypes; ctypes.CDLL("libb64.so.0d")'

run() {
  echo "+ $*"
  ".venv/bin/$1" "${@:2}"
}

run ruff format --check .
run ruff check .
run mypy
# Tests wait more than they compute: four files at a time on two cores. Later options win: -n0 for one after the other.
if [ $# -gt 0 ]; then
  run python -m pytest -n 4 --dist loadfile "$@"
else
  run python -m pytest -n 4 --dist loadfile -m "not alone"
  run python -m pytest -n 2 --dist loadfile -m alone
fi
