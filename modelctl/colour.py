"""Colours, where somebody looks: on a terminal, unless NO_COLOR is set (https://no-color.org)."""

from __future__ import annotations

import os
import sys

CODES = {"ok": 32, "warning": 33, "fail": 31, "error": 31}


def paint(text: str, meaning: str) -> str:
    """Return `text` for standard output, in the colour of what it means where colours are wanted."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\x1b[{CODES[meaning]}m{text}\x1b[0m"
