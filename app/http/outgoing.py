"""Answers on their way out: their bytes count until the client reads them, and a client that does not read is cut off.

    connection --unsent bytes of its transport, every second--> Budget
                                                            --> too slow: the connection is cut

The web server hands a whole answer to the transport, which would keep unread bytes for ever. A client must read at a
minimum rate, measured over whole time windows: a byte now and then is not enough, and a slow but steady reader gets all
of a large answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from app.memory import Budget

OUTGOING = "outgoing"
"""The key of the lifespan's state under which connections find the `Outgoing`."""
MIN_RATE = 20_000
"""Bytes per second that a client must read."""
LOOK_S = 1.0
UNSENT_BYTES = 128 * 1024
"""Bytes that the kernel buffers beyond the client's window (TCP_NOTSENT_LOWAT). By default it may buffer megabytes: no
budget counts them, and while a slow client reads them it seems to have stopped."""

logger = structlog.get_logger(__name__)


@dataclass(eq=False)
class Backlog:
    """The bytes that one connection was given to write and has not written yet.

    Attributes:
        transport: the connection's.
        size: the bytes when they were last counted.
        since: when the current window began, by the loop's clock.
        first: the bytes when it began.

    """

    transport: asyncio.Transport
    size: int = 0
    since: float = 0.0
    first: int = 0


class Outgoing:
    """Watches the answers of all connections.

    Args:
        budget: counts the bytes that wait.
        timeout_s: the length of a window, in which a client must read all waiting bytes, or `MIN_RATE` on average.

    """

    def __init__(self, budget: Budget, timeout_s: float) -> None:
        self._budget = budget
        self._timeout_s = timeout_s
        self._backlogs: set[Backlog] = set()

    def add(self, transport: asyncio.Transport) -> Backlog:
        """Watch a connection; return its backlog, for `look` and `remove`."""
        backlog = Backlog(transport)
        self._backlogs.add(backlog)
        return backlog

    def remove(self, backlog: Backlog) -> None:
        """Forget a connection that is closed."""
        self._backlogs.discard(backlog)
        self._budget.give_back(backlog.size)
        backlog.size = 0

    async def keep_watching(self) -> None:
        """Look at all connections for ever."""
        while True:
            await asyncio.sleep(min(LOOK_S, self._timeout_s / 4))
            for backlog in tuple(self._backlogs):
                self.look(backlog)
            self._budget.settle()

    def look(self, backlog: Backlog) -> None:
        """Count a connection's unsent bytes, and close it when its client reads too slowly."""
        size = backlog.transport.get_write_buffer_size()
        if not size and not backlog.size:
            return
        now = asyncio.get_running_loop().time()
        grown = size > backlog.size
        if size != backlog.size:
            self._budget.add(size - backlog.size)
            backlog.size = size
        if grown:
            backlog.since, backlog.first = now, size
        elif size and now - backlog.since >= self._timeout_s:
            if backlog.first - size < min(backlog.first, MIN_RATE * self._timeout_s):
                logger.info("a client reads its answer too slowly and is disconnected", unsent_bytes=size)
                backlog.transport.abort()
            backlog.since, backlog.first = now, size
