"""Structured logs on standard error: readable by default, JSON by setting, with the request id on every line.

The gateway's own lines go straight to the stream: it writes one for every request, and Python's logging would cost more
than the rest of the line. Libraries log through Python's logging, and their lines look the same.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import suppress

import structlog
from structlog.typing import EventDict, Processor

from app.settings import Settings


class _Stream(io.TextIOBase):
    """Standard error without its errors: no request fails because nobody reads it or a disk is full."""

    def write(self, text: str) -> int:
        """Write, if that is possible."""
        with suppress(OSError, ValueError):
            return sys.stderr.write(text)
        return 0

    def flush(self) -> None:
        """Flush, if that is possible."""
        with suppress(OSError, ValueError):
            sys.stderr.flush()


class _Named(structlog.WriteLogger):
    """Writes lines to standard error; its name is shown in each line."""

    def __init__(self, name: str = "app") -> None:
        super().__init__(_Stream())  # type: ignore[arg-type]  # it writes text
        self.name = name


def configure(settings: Settings) -> None:
    """Set up the logs of the gateway, and of its libraries. Called once, by the process's main."""
    stamped: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderers = _renderers(settings.log_format)
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*stamped, *renderers],
        logger_factory=_Named,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*stamped, structlog.stdlib.ExtraAdder(), _without_colours],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # httpx logs every fetch, uvicorn every connection; our own line per request says more.
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
