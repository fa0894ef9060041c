"""How the gateway stops: it reports not ready, serves on until load balancers notice, finishes requests, and ends.

SIGTERM --> readyz 503, answers say `Connection: close` --GATEWAY_DRAIN_DELAY_S--> no new connections
        --until all requests are answered, at most GATEWAY_DRAIN_TIMEOUT_S--> the end
SIGINT (Ctrl-C), or a worker whose master is gone --> no new connections, at once

Before the gateway serves, both signals end it at once (`app.http.server`).
"""

from __future__ import annotations

import asyncio
import signal
import threading
from types import FrameType

import structlog

logger = structlog.get_logger(__name__)


class Drain:
    """The state of stopping: `begun` is true once the gateway should get no more requests."""

    def __init__(self, delay_s: float = 0) -> None:
        self._delay_s = delay_s
        self.begun = False

    def watch(self) -> None:
        """Handle SIGTERM before the web server's handler does; called in the running loop, before it serves."""
        stop = signal.getsignal(signal.SIGTERM)
        if not callable(stop) or threading.current_thread() is not threading.main_thread():
            return
        loop = asyncio.get_running_loop()

        def begin(number: int, frame: FrameType | None) -> None:
            if not self.begun:
                self.begun = True
                loop.call_soon_threadsafe(logger.info, "draining")
                loop.call_soon_threadsafe(loop.call_later, self._delay_s, stop, number, frame)

        signal.signal(signal.SIGTERM, begin)
