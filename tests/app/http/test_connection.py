"""Both parsers on raw bytes: slow heads, broken chunks, and clients that have ended their side."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from app.http import connection
from app.http.connection import Connection
from app.http.outgoing import OUTGOING, Outgoing
from app.memory import Budget

FIELDS = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /" + FIELDS + b"\r\n"
UPGRADE = b"GET /" + FIELDS + b"Upgrade: h2c\r\n\r\n"
CHUNKED = b"POST %s" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\n"


def chunked(size: int) -> bytes:
    """Return a request with a body of `size` bytes in chunks."""
    return CHUNKED % b"/" + b"1000\r\n%s\r\n" % (b"x" * 4096) * (size // 4096) + b"0\r\n\r\n"


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer after reading the body; at /early start the answer before it, and end it afterwards."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    if scope["path"] == "/early":
        await send(start)
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
    while (message := await receive()).get("more_body", False):
        pass
    if message["type"] == "http.disconnect":
        return
    if scope["path"] == "/early":
        await send({"type": "http.response.body", "body": b"k"})
        return
    await send(start)
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def told(request: pytest.FixtureRequest) -> Callable[..., bytes]:
    """Return what sends parts to a server, with a pause after each, and returns all that comes until it closes.

    An exception out of the protocol fails the test.
    """

    async def tell(parts: tuple[bytes, ...], end: bool) -> bytes:
        loop = asyncio.get_running_loop()
        faults: list[Any] = []
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        config = uvicorn.Config(application, http=Connection, ws="none", lifespan="off", log_config=None)
        config.load()
        state = {OUTGOING: Outgoing(Budget(1 << 30), 30)}
        server = await loop.create_server(lambda: Connection(config, ServerState(), state, loop), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for part in parts:
                writer.write(part)
                if part is not parts[-1]:
                    await asyncio.sleep(0.1)
            if end:
                writer.write_eof()
            said = await asyncio.wait_for(reader.read(), 4)
        finally:
            writer.close()
            server.close()
        assert not faults
        return said

    def run(*parts: bytes, end: bool = False) -> bytes:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(tell(parts, end))

    return run


@pytest.mark.parametrize("first", [GET, UPGRADE])
def test_a_second_head_has_a_time_limit(
    told: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """Both parsers close the connection this long after the head's first byte, even if more bytes drip in."""
    monkeypatch.setattr(connection, "MAX_HEAD_S", 0.5)
    assert told(first, b"G").count(b"200 OK") == 1
    assert told(first, b"G", b"E", b"T", b" ", b"/", b" ").count(b"200 OK") == 1


def test_a_second_head_in_pieces_is_served(told: Callable[..., bytes]) -> None:
    """A complete head has no time limit any more."""
    assert told(UPGRADE, UPGRADE[:9], UPGRADE[9:], UPGRADE[:-2], UPGRADE[-2:], end=True).count(b"200 OK") == 3


@pytest.mark.parametrize("path", [b"/early", b"/"])
def test_a_broken_chunk_is_the_clients_fault(told: Callable[..., bytes], path: bytes) -> None:
    """Before the answer has begun it is refused; later the connection is closed, without an exception."""
    said = told(CHUNKED % path + b"5\r\nhello\r\n", b"zz\r\n")
    assert said.startswith(b"HTTP/1.1 400" if path == b"/" else b"HTTP/1.1 200")
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (chunked(4096), 1),
        (chunked(200_000), 1),
        (GET + chunked(40_960), 2),
        (chunked(40_960) + chunked(40_960), 2),
        (chunked(40_960) + chunked(40_960)[:-5], 1),
        (chunked(40_960)[:-5], 0),
    ],
)
def test_complete_requests_before_the_end_are_answered(told: Callable[..., bytes], data: bytes, answers: int) -> None:
    """Bytes that were still unread when the client ended its side count too."""
    assert told(data, end=True).count(b"200 OK") == answers


@pytest.mark.parametrize("request_line", [b"CONNECT /", b"GET /"])
def test_an_upgrade_logs_nothing(
    told: Callable[..., bytes], caplog: pytest.LogCaptureFixture, request_line: bytes
) -> None:
    """Clients that offer an upgrade or ask for a tunnel fill no log."""
    with caplog.at_level(logging.WARNING):
        told(request_line + FIELDS + b"Connection: Upgrade\r\n" * (b"GET" in request_line) + b"\r\n", end=True)
    assert not caplog.records
