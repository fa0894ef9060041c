"""A command's progress: lines on standard error, because standard output is for the result."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

COLOURS = {"ok": 32, "warning": 33, "fail": 31, "error": 31}


def say(line: str) -> None:
    """Print one line of progress."""
    with suppress(OSError):  # the terminal has been closed
        print(line, file=sys.stderr, flush=True)


def paint(text: str, meaning: str) -> str:
    """Return `text` in the colour of its meaning: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{COLOURS[meaning]}m{text}\x1b[0m"
