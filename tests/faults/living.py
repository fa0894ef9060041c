"""Processes that may end while a test looks at them: what has ended raises nothing."""

from __future__ import annotations

import psutil


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs still; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def words(process: psutil.Process) -> list[str]:
    """Return a process's command line; empty when it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
