"""Structured logs on standard error: readable by default, JSON by setting, with the request id on every line."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import EventDict, Processor

from app.settings import Settings


def configure(settings: Settings) -> None:
    """Send the logs of the gateway, and of its libraries, through one formatter. Called once, by the process's main."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _without_colours,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(settings.log_format)],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # httpx tells of every fetch, uvicorn of every connection; our own line per request says more.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel("WARNING")


def _without_colours(_: object, __: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second, coloured wording of its messages."""
    event.pop("color_message", None)
    return event


def _renderers(log_format: str) -> list[Processor]:
    if log_format == "json":
        # Without local variables, which hold callers' texts and keys.
        transform = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        return [structlog.processors.ExceptionRenderer(transform), structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
