"""What one request carries along: its id, its deadline, and where its time went.

The context lives in the ASGI scope's state, so that routes, problems, logs and metrics all see the same one.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from fastapi import Request

from app.errors import InvalidParameterError
from app.settings import Settings

VISIBLE_ASCII = range(0x21, 0x7F)
MAX_REQUEST_ID = 128
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, order=True)
class Deadline:
    """The moment at which the time for something is over. Of two deadlines, the earlier one compares as the smaller.

    Attributes:
        at: seconds by `time.perf_counter`.

    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline `seconds` from now."""
        return cls(time.perf_counter() + seconds)

    def left_s(self) -> float:
        """Return the seconds that are left; negative when the deadline has passed."""
        return self.at - time.perf_counter()

    def within(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and the one `seconds` from now."""
        at = time.perf_counter() + seconds
        return self if self.at <= at else Deadline(at)


class Span:
    """A context that measures its time. A class costs less than a generator, and each request enters several spans."""

    __slots__ = ("_begun", "_name", "_spans")

    def __init__(self, spans: dict[str, float], name: str) -> None:
        self._spans, self._name = spans, name

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spans[self._name] = self._spans.get(self._name, 0.0) + time.perf_counter() - self._begun


class Turn:
    """A context for an item's wait for a slot; see `Context.wait_turn`."""

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._context.turns += 1
        if self._context.hang_up is not None:
            # In the loop's next iteration: an item that finds a free slot has left this context by then, and is served.
            asyncio.get_running_loop().call_soon(self._give_up)

    def __exit__(self, *_: object) -> None:
        self._context.turns -= 1

    def _give_up(self) -> None:
        if self._context.turns and self._context.hang_up is not None:
            self._context.hang_up()


@dataclass
class Context:
    """One request. Times are seconds."""

    request_id: str
    started: float = field(default_factory=time.perf_counter)
    spans: dict[str, float] = field(default_factory=dict)
    deadline: Deadline = Deadline(0.0)
    """Set by `set_deadline`; until then it has passed."""
    traceparent: str = ""
    """The caller's trace context (W3C), handed on to Triton; empty when it has none."""
    route: str = ""
    """The path of a task's route; empty for routes that FastAPI serves."""
    model: str = ""
    code: str = ""
    """The problem's code, when the request failed."""
    turns: int = 0
    """The number of its items that wait for a slot."""
    leave: Callable[[], None] | None = None
    """Cancels the request; called when its client has left. None when the request is over."""
    hang_up: Callable[[], None] | None = None
    """Closes the connection of a client that has ended its side and may be gone; None while the side is open."""
    answered: list[Callable[[], None]] = field(default_factory=list)
    """Called when the request has been answered, or its client has left."""

    @staticmethod
    def of(request: Request) -> Context:
        """Return the context of a request."""
        context: Context = request.scope["state"]["context"]
        return context

    def span(self, name: str) -> Span:
        """Return a context that adds the time spent inside to the span `name`."""
        return Span(self.spans, name)

    @contextmanager
    def longest(self, name: str) -> Iterator[None]:
        """Set the span `name` to the longest time spent inside, for items that run side by side."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.spans[name] = max(self.spans.get(name, 0.0), time.perf_counter() - begun)

    def wait_turn(self) -> Turn:
        """Return a context for a wait that is given up when the client has ended its side of the connection."""
        return Turn(self)

    def half_close(self, hang_up: Callable[[], None]) -> bool:
        """Note that the client sends nothing more; return whether it may still get its answer.

        It may when all of its items are with Triton, or when the request needs no Triton. The request is given up as
        soon as one of its items waits for a slot, because most clients that seem to close one half of a connection
        have closed both.
        """
        self.hang_up = hang_up
        return not self.turns

    def set_deadline(self, header: str | None, settings: Settings) -> None:
        """Set the deadline from `X-Request-Timeout-Ms`, capped by the settings.

        Raises:
            InvalidParameterError: when the header is not a positive whole number.

        """
        timeout_ms = settings.default_timeout_ms
        if header is not None:
            if not (header.isascii() and header.isdecimal() and header.strip("0")):
                raise InvalidParameterError("X-Request-Timeout-Ms must be a positive whole number.")
            timeout_ms = int(header) if len(header) <= 12 else settings.max_timeout_ms
        self.deadline = Deadline(self.started + min(timeout_ms, settings.max_timeout_ms) / 1000)

    def server_timing(self) -> str:
        """Return the value of the `Server-Timing` header (W3C), in milliseconds."""
        return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.spans.items())


def request_id(given: str | None) -> str:
    """Return the caller's request id where it is usable, else a new UUID of version 7 (RFC 9562)."""
    if given and len(given) <= MAX_REQUEST_ID and all(ord(character) in VISIBLE_ASCII for character in given):
        return given
    milliseconds = time.time_ns() // 1_000_000  # by hand: `uuid.uuid7` came with Python 3.14
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
