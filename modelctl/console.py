"""What a command says while it works: lines on standard error, since standard output is for its result."""

from __future__ import annotations

import sys
from contextlib import suppress


def say(line: str) -> None:
    """Print one line of progress."""
    with suppress(OSError):  # the terminal has been closed
        print(line, file=sys.stderr, flush=True)
