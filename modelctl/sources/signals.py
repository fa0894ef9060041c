"""Ctrl-C, and the signals that end a command like it."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """Whether the user has asked the command to stop.

    The first signal raises KeyboardInterrupt where it arrives. Python drops an exception that is raised in a finalizer,
    such as gRPC's; `check` raises it again. Signals that follow within `AGAIN_S` raise nothing, so that an impatient
    user does not interrupt the undoing before it ignores signals.
    """

    AGAIN_S = 2

    def __init__(self) -> None:
        self._arrived_at = -math.inf
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._arrive)

    def _arrive(self, *_: object) -> None:
        before, self._arrived_at = self._arrived_at, time.monotonic()
        # Half-made objects of libraries would print their complaints below the command's last sentence.
        sys.unraisablehook = lambda _: None
        if self._arrived_at - before > self.AGAIN_S:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise KeyboardInterrupt when a signal has arrived."""
        if self._arrived_at > -math.inf:
            raise KeyboardInterrupt


@contextmanager
def ignored() -> Iterator[None]:
    """Ignore the stop signals inside the block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
