"""HTTP load over many connections: so many stay open, and each request takes the next of them in turn.

A few requests are under way at once, however many connections there are. So what a connection costs by being there can
be told from what a queue of requests costs: a closed load of 2,000 callers measures the queue.
"""

from __future__ import annotations

import asyncio
import re
import resource
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from modelctl.bench.load import LOOK_S, TIMEOUT_S, Answered, Cores, cores
from modelctl.errors import CommandError

HOST = "127.0.0.1"
OPENED_AT_ONCE, SPARE_FILES = 50, 200
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


def allow(connections: int) -> None:
    """Let this process, and those that it starts, hold so many connections; raises CommandError when it may not."""
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
    """One connection that stays open; where the server has closed it meanwhile, it is opened again."""

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
        """Send a request, and read its answer.

        Raises:
            RefusedError: when its status is not 200.
            OSError, EOFError: when the server cannot be reached, or ends the connection under way, twice.

        """
        try:
            await self._ask(request)
        except (OSError, EOFError):
            # An idle connection may be closed at the very moment at which it is taken.
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


@dataclass(frozen=True)
class Held:
    """What was answered.

    Attributes:
        beside: cores that the group beside the server kept busy; `answered` does not count them as others'.
        reopened: how many connections the server had closed, so that they were opened again.

    """

    answered: Answered
    beside: float
    reopened: int


@dataclass(frozen=True)
class HttpLoad:
    """How much is asked for: requests of `callers` at once over `connections`, as many or more."""

    callers: int
    connections: int
    seconds: float
    warm_up: float = 0.5

    def run(self, port: int, request: bytes, group: int, beside: int, stopping: threading.Event) -> Held:
        """Send a request again and again; when `stopping` is set, what was answered until then is returned.

        Args:
            port: of the server, on this machine.
            request: as `post` makes it.
            group: the server's process group.
            beside: the process group of what the server asks in turn.
            stopping: ends it.

        Raises:
            CommandError: when a request is refused or fails, or none was answered.

        """
        try:
            held = asyncio.run(self._run(port, request, group, beside, stopping))
        except (OSError, EOFError, TimeoutError) as error:
            raise CommandError(f"The gateway failed under load: {error or type(error).__name__}.") from error
        if not held.answered.latencies and not stopping.is_set():
            raise CommandError(f"No request was answered in {self.seconds:g} s: give more by --seconds.")
        return held

    async def _run(self, port: int, request: bytes, group: int, beside: int, stopping: threading.Event) -> Held:
        idle = deque(Connection(port) for _ in range(self.connections))
        every = list(idle)
        try:
            for number in range(0, len(every), OPENED_AT_ONCE):
                await asyncio.gather(*(one.open() for one in every[number : number + OPENED_AT_ONCE]))
            begin = time.perf_counter() + self.warm_up
            end = begin + self.seconds
            latencies: list[float] = []

            async def caller() -> None:
                while (begun := time.perf_counter()) < end and not stopping.is_set():
                    connection = idle.popleft()
                    async with asyncio.timeout(TIMEOUT_S):
                        await connection.ask(request)
                    idle.append(connection)
                    done = time.perf_counter()
                    if begin <= done <= end:
                        latencies.append((done - begun) * 1e3)

            measured = [asyncio.create_task(cores(one, begin, end)) for one in (group, beside)]
            work: asyncio.Future[Any] = asyncio.gather(*(caller() for _ in range(self.callers)), *measured)
            while not work.done():
                await asyncio.wait([work], timeout=LOOK_S)
                if stopping.is_set():
                    work.cancel()
                    with suppress(asyncio.CancelledError):
                        await work
                    return Held(Answered(self.seconds, latencies, Cores()), 0.0, 0)
            await work  # raises what a caller has raised
            server, second = (task.result() for task in measured)
            busy = replace(server, others=max(0.0, server.others - second.server))
            reopened = sum(one.opened - 1 for one in every)
            return Held(Answered(self.seconds, latencies, busy), second.server, reopened)
        finally:
            for one in every:
                one.close()
