"""The warning at the start when other machines can reach the gateway."""

from __future__ import annotations

import structlog

from app.settings import Settings

logger = structlog.get_logger("app")


def warn(settings: Settings) -> None:
    """Warn in one line that there is no authentication, where other machines can reach the gateway."""
    if not settings.loopback:
        logger.warning("no authentication: whoever reaches this address may use the gateway", host=settings.host)
