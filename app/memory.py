"""What a process has freed, given back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Give back what glibc keeps in arenas that other blocks keep from shrinking; takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own
    if trim is not None:
        trim(0)
