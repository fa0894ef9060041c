"""The console: progress and refusals on standard error, since standard output is for results; signals; exit codes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from modelctl.errors import CommandError

COLOURS = {"ok": 32, "warning": 33, "fail": 31, "error": 31}
AGAIN_S = 0.1
OURS = ("benchmarks", "modelctl", "stages")
INTERRUPTED: list[BaseException] = []
"""Errors of a stop, kept with all that their frames hold: a call of gRPC that was interrupted never ends, and closing
its channel, which its finalizer does, waits for the call forever."""


def run(program: str, prepare: Callable[[], Namespace]) -> int:
    """Run one command of a program; return its exit code.

    Args:
        program: its name, which precedes each refusal.
        prepare: imports the command and returns its arguments, with the function to call with them as `run`.

    """
    try:
        with _ended_by_signals():
            arguments = prepare()
        with _dropped_interrupts_come_again():
            code: int = arguments.run(arguments)
    except CommandError as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            INTERRUPTED.append(error)
        return _refuse(program, str(error), 1)
    except KeyboardInterrupt as error:
        INTERRUPTED.append(error)
        return _refuse(program, "stopped.", 130)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in OURS:
            raise
        return _refuse(program, f"This needs the package {error.name}, which is not installed here.", 1)
    return code


def leave(code: int) -> NoReturn:
    """End the process; after a stop at once, without the finalizers that would wait (see `INTERRUPTED`)."""
    if INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the process at once.

    In the middle of an import the first would come out as that package's error; the second, left to its default, does
    not end a container's first process.
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


@contextmanager
def _dropped_interrupts_come_again() -> Iterator[None]:
    """Send Ctrl-C again, a moment later, when it met code whose exceptions Python drops.

    Such code is finalizers, and what runs around a fork, as of a `Popen` with `preexec_fn`.
    """
    before = sys.unraisablehook

    def heed(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()

    sys.unraisablehook = heed
    try:
        yield
    finally:
        sys.unraisablehook = before


def _refuse(program: str, sentence: str, code: int) -> int:
    """Print why there is no result; with --json also as one JSON object on standard output."""
    print(f"{program}: {sentence}", file=sys.stderr)
    if "--json" in sys.argv:
        print(json.dumps({"error": sentence}))
    return code


def say(line: str) -> None:
    """Print one line of progress."""
    with suppress(OSError):  # the terminal has been closed
        print(line, file=sys.stderr, flush=True)


def paint(text: str, meaning: str) -> str:
    """Return `text` in the colour of its meaning: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{COLOURS[meaning]}m{text}\x1b[0m"
