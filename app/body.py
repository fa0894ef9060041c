"""The bytes of one request's body, counted while they stream in: each request's, and all that the process holds.

The process holds bodies, items that are with Triton after their callers have left (`app.triton.calls`), and answers
that no client has taken yet (`app.outgoing`): all count against one `Budget`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from fastapi import Request
from prometheus_client import Gauge

from app import memory
from app.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    OverloadedError,
    RequestBodyTimeoutError,
)

LARGE_BYTES = 16_000_000
"""Of what was held: after so many, memory is given back to the system."""


class Budget:
    """How many bytes of bodies and of answers the process may hold at once."""

    def __init__(self, most: int, gauge: Gauge | None = None) -> None:
        self.most = most
        self.held = 0
        self._peak = 0
        self._gauge = gauge

    def take(self, count: int) -> None:
        """Hold `count` bytes more.

        Raises:
            OverloadedError: when there is no room for them.

        """
        if self.held + count > self.most:
            raise OverloadedError("The gateway holds as many bytes of requests and answers as it may.")
        self.add(count)

    def give_back(self, count: int) -> None:
        """Release `count` bytes."""
        self.add(-count)

    def add(self, count: int) -> None:
        """Count `count` bytes more that are there already, room or not; fewer, where it is negative."""
        self.held += count
        self._peak = max(self._peak, self.held)
        if self._gauge is not None:
            self._gauge.set(self.held)

    def settle(self) -> None:
        """Give memory back to the system when much was held and little is now; called now and then."""
        if self._peak > LARGE_BYTES and self.held < self._peak // 4:
            self._peak = self.held
            memory.give_back()


class Held:
    """Bytes of one answer that count against a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._count = 0

    def resize(self, count: int) -> None:
        """Hold so many bytes instead of those until now.

        Raises:
            OverloadedError: when there is no room for more.

        """
        if count > self._count:
            self._budget.take(count - self._count)
        else:
            self._budget.give_back(self._count - count)
        self._count = count

    def give_back(self) -> None:
        """Hold nothing more."""
        self._budget.give_back(self._count)
        self._count = 0


class Body:
    """One request's body. Used as a context: its bytes count as held until the request is answered."""

    def __init__(self, request: Request, budget: Budget, timeout_s: float) -> None:
        self._request = request
        self._budget = budget
        self._timeout_s = timeout_s
        self._limit = 0
        self.announced = 0
        """The bytes that the header announces, once `limit` has read it; 0 without one."""
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._budget.give_back(self._held)

    def limit(self, most: int) -> None:
        """Set the most bytes that are read; a longer body announced by its header is refused unread.

        Raises:
            BodyTooLargeError: when the header announces more.
            MalformedRequestError: when the header is no number.

        """
        self._limit = most
        announced = self._request.headers.get("content-length", "0")
        if not announced.isdecimal():
            raise MalformedRequestError("Content-Length must be a number.")
        self.announced = int(announced)
        self._check(self.announced)

    def hold(self, count: int) -> None:
        """Count `count` bytes more as held until the request is answered, its own or what was fetched for it.

        Raises:
            OverloadedError: when all requests together would hold more than the process may.

        """
        self._budget.take(count)
        self._held += count

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise BodyTooLargeError(f"The body may have {self._limit} bytes at most.")

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, chunk by chunk.

        Raises:
            BodyTooLargeError: at the first byte past the limit.
            OverloadedError: when all bodies together would be more than the process may hold.
            RequestBodyTimeoutError: when it does not arrive in time.

        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        more = True
        while more:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await self._request.receive()
            except TimeoutError as error:
                raise RequestBodyTimeoutError("The request's body did not arrive in time.") from error
            if message["type"] == "http.disconnect":
                raise MalformedRequestError("The client left before its body was complete.")
            chunk, more = message.get("body", b""), message.get("more_body", False)
            self._check(self._held + len(chunk))
            self.hold(len(chunk))
            yield chunk

    async def bytes(self) -> bytes:
        """Return the whole body; raises as `stream` does."""
        return b"".join([chunk async for chunk in self.stream()])
