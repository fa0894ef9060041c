"""`python -m app`: serves the gateway until SIGTERM or SIGINT."""

from __future__ import annotations

import sys

import structlog
import uvicorn
from pydantic import ValidationError

from app.main import create_app
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
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        # httptools loses the body of a request that offers to upgrade to HTTP/2, as some clients do by default.
        http="h11",
        ws="none",
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
