"""`python -m app`: serves the gateway until SIGTERM or SIGINT, in one process or in several behind one port."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack

import structlog
import uvicorn
from pydantic import ValidationError

from app.connection import Connection
from app.security import exposure
from app.settings import Settings, unknown_variables
from app.telemetry import logging

logger = structlog.get_logger("app")


def main() -> int:
    """Run the gateway; a setting that cannot be right ends it with one sentence."""
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        print(f"GATEWAY_{str(first['loc'][0]).upper()}: {first['msg']}.", file=sys.stderr)
        return 2
    logging.configure(settings)
    for name, known in unknown_variables().items():
        logger.warning("no setting reads this variable", variable=name, closest=known)
    exposure.tell(settings)
    # uvicorn raises the signal that ended it once more; to have been told to stop is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with ExitStack() as stack:
        if settings.workers > 1:
            # Each worker's metrics are in files there: whichever is asked tells those of all.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-"))
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run(
            "app.main:app",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            http=Connection,
            ws="none",
            timeout_graceful_shutdown=settings.drain_timeout_s,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
