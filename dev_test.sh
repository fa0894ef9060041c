#!/usr/bin/env bash
# Sets everything up, then checks format, lint and types, and runs the tests.
#   ./dev_test.sh                  everything
#   ./dev_test.sh --fast           without the tests that need a server, a browser or another installation
#   ./dev_test.sh [--fast] ...     what follows goes to pytest: paths, -k, -n0
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
begun=$SECONDS
./dev_start.sh --setup-only dev

fast=
if [ "${1:-}" = --fast ]; then
  fast=1
  shift
fi

# may_install PACKAGE: asks the person at the terminal; where there is none, as in CI, the answer is yes.
may_install() {
  local answer
  if ! [ -t 0 ] || ! [ -t 1 ] || [ -n "${CI:-}" ]; then
    return
  fi
  read -r -p "Install the Debian package $1 by apt-get? [y/N] " answer || return 1
  [[ $answer = [yY]* ]]
}

install() {
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && may_install "$1"; then
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

if [ -z "$fast" ]; then
  need docker-compose "to check docker-compose.yml" has_compose
  need chromium "to test the playground" has_browser
  need wrk "to make the load of benches" command -v wrk
  need libb64-0d "by the load generator perf_analyzer" .venv/bin/python -c 'import ctypes; ctypes.CDLL("libb64.so.0d")'
fi

run() {
  echo "+ $*"
  ".venv/bin/$1" "${@:2}"
}

run ruff format --check .
run ruff check .
run mypy
# Tests wait more than they compute: four files at a time on two cores. Later options win: -n0 for one after the other.
if [ -n "$fast" ]; then
  run python -m pytest -q -n 2 --dist loadfile -m "not server and not slow and not alone" "$@"
elif [ $# -gt 0 ]; then
  run python -m pytest -n 4 --dist loadfile "$@"
else
  run python -m pytest -n 4 --dist loadfile -m "not alone"
  run python -m pytest -n 2 --dist load -m alone
fi
echo "dev_test.sh${fast:+ --fast}: everything passed, in $((SECONDS - begun)) s."
