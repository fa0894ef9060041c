"""The bytes of one request's body, counted while they stream in: against its own limit and the process's `Budget`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from fastapi import Request

from app.context import Deadline
from app.errors import (
    BodyTooLargeError,
    MalformedRequestError,
    RequestBodyTimeoutError,
)
from app.memory import Budget


class Body:
    """One request's body, a context manager: its bytes count as held until the request is answered."""

    def __init__(self, request: Request, budget: Budget, deadline: Deadline) -> None:
        self._request = request
        self._budget = budget
        self._deadline = deadline
        self._limit = 0
        self.announced = 0
        """The bytes that Content-Length announces, once `limit` has read it; 0 without the header."""
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._budget.give_back(self._held)

    def limit(self, max_bytes: int) -> None:
        """Set the limit of the body's bytes; a body whose header announces more is refused unread.

        Raises:
            BodyTooLargeError: when the header announces more.
            MalformedRequestError: when the header is not a number.

        """
        self._limit = max_bytes
        announced = self._request.headers.get("content-length", "0")
        if not announced.isdecimal():
            raise MalformedRequestError("Content-Length must be a number.")
        self.announced = int(announced)
        self._check(self.announced)

    def hold(self, count: int) -> None:
        """Count `count` more bytes, of the body or fetched for the request, as held until the request is answered.

        Raises:
            OverloadedError: when all requests together would hold more bytes than the process may hold.

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
            OverloadedError: as `hold` does.
            RequestBodyTimeoutError: when it does not arrive in time.

        """
        more = True
        while more:
            try:
                async with asyncio.timeout(self._deadline.left_s()):
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
