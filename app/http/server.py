"""The web server of one process, and its answer to signals.

starting: SIGTERM and SIGINT end the process at once, because no request is running; the exit code is 128 + the signal
serving:  they begin the drain that `app.http.drain` describes; the exit code is 0
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from app.http.connection import Connection
from app.settings import Settings


class Server(uvicorn.Server):
    """Serves from one process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle the signals for good. uvicorn would raise them again at its end, and they would set the exit code."""
        for number in HANDLED_SIGNALS:
            signal.signal(number, self.handle_exit)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)  # `workers` starts its workers with SIGINT blocked
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop serving; end the process at once if it does not serve yet."""
        if not self.started:
            os._exit(128 + sig)
        super().handle_exit(sig, frame)


def config(settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    return uvicorn.Config(
        "app.main:app",
        factory=True,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
