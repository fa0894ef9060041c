"""Answers on their way out: their bytes count while they wait for the client, and a client that does not read is left.

    connection --what its transport holds back, looked at every second--> Budget
                                                                      --> too slow: the connection is cut

The web server hands a whole answer to the transport, which keeps what the client does not take: without this, for ever.
What is asked of a client is a rate over whole windows of time, so a byte now and then does not help, and a reader that
is slow but steady gets all of a large answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import structlog

from app.memory import Budget

OUTGOING = "outgoing"
"""The key of the lifespan's state under which connections find this."""
LEAST_RATE = 20_000
"""Bytes a second that a client must take."""
LOOK_S = 1.0
UNSENT_BYTES = 128 * 1024
"""What the kernel takes of an answer beyond what the client's window lets out (TCP_NOTSENT_LOWAT): else it may take
megabytes, which count nowhere, and which a slow client takes so long to read that it seems to have stopped."""

logger = structlog.get_logger(__name__)


@dataclass(eq=False)
class Backlog:
    """What one connection has been given to write and has not written yet.

    Attributes:
        transport: the connection's.
        size: bytes, when they were last looked at.
        since: when the window began in which the client must take its share, by the loop's clock.
        first: bytes at that time.

    """

    transport: asyncio.Transport
    size: int = 0
    since: float = 0.0
    first: int = 0


class Outgoing:
    """Watches the answers of all connections.

    Args:
        budget: is told how many bytes wait.
        timeout_s: a window; in each a client must take what was left at its begin, or `LEAST_RATE` on average.

    """

    def __init__(self, budget: Budget, timeout_s: float) -> None:
        self._budget = budget
        self._timeout_s = timeout_s
        self._backlogs: set[Backlog] = set()

    def add(self, transport: asyncio.Transport) -> Backlog:
        """Watch a connection; return what `look` and `remove` are to be called with."""
        backlog = Backlog(transport)
        self._backlogs.add(backlog)
        return backlog

    def remove(self, backlog: Backlog) -> None:
        """Forget a connection that is no more."""
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
        """Count what a connection holds back now, and cut it when its client takes too little of it."""
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
            if backlog.first - size < min(backlog.first, LEAST_RATE * self._timeout_s):
                logger.info("a client does not take its answer", waiting=size)
                backlog.transport.abort()
            backlog.since, backlog.first = now, size
