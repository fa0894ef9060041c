"""`python -m app`: serves the gateway until SIGTERM or SIGINT, in one process or in several behind one port."""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    # The imports below take a second, and no request is running yet: a signal ends the process at once. Its default
    # action does not suffice, because the first process of a container ignores it.
    for _number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(_number) != signal.SIG_IGN:
            signal.signal(_number, lambda number, _: os._exit(128 + number))

import sys

import structlog
from uvicorn.config import STARTUP_FAILURE

from app.http import workers
from app.http.server import Server, config
from app.security import exposure
from app.settings import SettingsError, read, unknown_variables
from app.telemetry import logging

logger = structlog.get_logger("app")


def main() -> int:
    """Run the gateway; an invalid setting ends it with one sentence."""
    try:
        settings = read()
    except SettingsError as error:
        print(*error.faults, sep="\n", file=sys.stderr)
        return 2
    logging.configure(settings)
    for name, known in unknown_variables().items():
        logger.warning("no setting reads this variable", variable=name, closest=known)
    exposure.warn(settings)
    if settings.workers > 1:
        return workers.serve(settings)
    server = Server(config(settings))
    server.run()
    return 0 if server.started else STARTUP_FAILURE


if __name__ == "__main__":
    sys.exit(main())
