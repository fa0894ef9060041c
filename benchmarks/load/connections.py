"""HTTP over many open connections: a transport of `modelctl.bench.load`, which sends each request on the next of them.

A few requests run at once, whatever the number of connections, so that the cost of an open connection is measured apart
from the cost of a queue: a closed load of 2,000 callers, as `wrk` makes it, would measure the queue.
"""

from __future__ import annotations

import asyncio
import re
import resource
from collections import deque
from collections.abc import Mapping
from typing import Self

from modelctl.bench.load import TIMEOUT_S
from modelctl.errors import CommandError

HOST = "127.0.0.1"
OPENED_AT_ONCE, SPARE_FILES = 50, 200
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def allow(connections: int) -> None:
    """Let this process and its children hold that many connections; raises CommandError when it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise CommandError(f"{connections} connections need {wanted} open files, and {hard} are allowed (ulimit -Hn).")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class RefusedError(CommandError):
    """The server answered with another status than 200."""


def post(path: str, kind: str, body: bytes) -> bytes:
    """Return an HTTP request as bytes; `kind` is the media type of its body."""
    headers: Mapping[str, object] = {"Host": HOST, "Content-Type": kind, "Content-Length": len(body)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class Connection:
    """One connection that stays open; when the server has closed it meanwhile, it is opened again."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.opened = 0

    async def open(self) -> None:
        """Connect."""
        self.close()
        self._streams = await asyncio.open_connection(HOST, self._port)
        self.opened += 1

    def close(self) -> None:
        """Disconnect."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def ask(self, request: bytes) -> None:
        """Send a request and read its answer.

        Raises:
            RefusedError: when its status is not 200.
            OSError, EOFError: when the server cannot be reached, or closes the connection before its answer, twice.

        """
        try:
            await self._ask(request)
        except (OSError, EOFError):
            # The server may close an idle connection at the moment at which it is used.
            await self.open()
            await self._ask(request)

    async def _ask(self, request: bytes) -> None:
        if self._streams is None or self._streams[0].at_eof():
            await self.open()
        assert self._streams is not None  # noqa: S101 - just opened
        reader, writer = self._streams
        writer.write(request)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        if head.split(b" ", 2)[1] != b"200":
            raise RefusedError(f"The gateway answered {head.splitlines()[0].decode()}: {body[:300].decode()}")


class Connections:
    """Requests to the gateway, each over the connection that was idle longest."""

    def __init__(self, port: int, request: bytes, count: int) -> None:
        """Send one request again and again.

        Args:
            port: of the server, on this machine.
            request: as `post` makes it.
            count: open connections, as many as callers or more.

        """
        self._request = request
        self._all = [Connection(port) for _ in range(count)]
        self._idle = deque(self._all)

    @property
    def reopened(self) -> int:
        """Number of connections that were opened again after the server had closed them."""
        return sum(one.opened - 1 for one in self._all)

    async def __aenter__(self) -> Self:
        try:
            for number in range(0, len(self._all), OPENED_AT_ONCE):
                await asyncio.gather(*(one.open() for one in self._all[number : number + OPENED_AT_ONCE]))
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                raise _failed(error) from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def ask(self) -> None:
        """Send the request; raises CommandError when it fails, and RefusedError when it is refused."""
        connection = self._idle.popleft()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await connection.ask(self._request)
        except (OSError, EOFError, TimeoutError) as error:
            raise _failed(error) from error
        self._idle.append(connection)

    def _close(self) -> None:
        for one in self._all:
            one.close()


def _failed(error: Exception) -> CommandError:
    return CommandError(f"The gateway failed under load: {error or type(error).__name__}.")
