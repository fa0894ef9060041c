"""What the gateway says at its start when more than this machine reaches it."""

from __future__ import annotations

import structlog

from app.settings import Settings

logger = structlog.get_logger("app")


def tell(settings: Settings) -> None:
    """Say in one line that there is no authentication, where others than this machine may ask."""
    if not settings.loopback:
        logger.warning("no authentication: whoever reaches this address may use the gateway", host=settings.host)
