"""`modelctl`: the command line."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from modelctl.errors import CommandError


def main() -> int:
    """Run one command; return its exit code."""
    try:
        with _ended_by_signals():
            from modelctl import cli, configuration

            from_file = configuration.load()  # first, because options take their defaults from the environment
            arguments = cli.build(sys.argv[1:2]).parse_args()
            arguments.from_file = from_file
        code: int = arguments.run(arguments)
    except CommandError as error:
        return _refuse(str(error), 1)
    except KeyboardInterrupt:
        return _refuse("stopped.", 130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("modelctl", "stages"):
            raise
        return _refuse(f"This needs the package {error.name}, which is not installed here.", 1)
    return code


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once.

    During an import, Ctrl-C would look like an error of the imported package. SIGTERM with its default action does not
    end a container's first process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: os._exit(128 + number)) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse(sentence: str, code: int) -> int:
    """Print why there is no result; with --json, also as JSON on standard output."""
    print(f"modelctl: {sentence}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    return code


if __name__ == "__main__":
    sys.exit(main())
