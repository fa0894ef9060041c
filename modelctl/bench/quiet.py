"""Waits for an idle machine before a measurement, because other programs would disturb it."""

from __future__ import annotations

import threading
import time

from modelctl.embedded import processes

LOOK_S = 1.0
QUIET_CORES = 0.2


def wait(seconds: float, stopping: threading.Event) -> bool:
    """Wait at most `seconds` until all programs of this machine keep less than 0.2 cores busy; return True if they do.

    Ends early when `stopping` is set.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not stopping.is_set():
        begun, before = time.monotonic(), processes.machine_seconds()
        stopping.wait(LOOK_S)
        if processes.machine_seconds() - before < QUIET_CORES * (time.monotonic() - begun):
            return True
    return False
