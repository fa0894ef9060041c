"""Clients that end their side of the connection and read on, like `nc -N`."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

import pytest

TEXT = b'{"text": "I love this camera."}'
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(TEXT), TEXT)


def post(path: bytes, body: bytes, kind: bytes = b"application/json", fields: bytes | None = None) -> bytes:
    """Return a request as bytes."""
    length = b"Content-Length: %d\r\n" % len(body) if fields is None else fields
    return b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\n%s\r\n%s" % (path, kind, length, body)


def told(stack: Any, data: bytes, *, pause_s: float = 0) -> tuple[bytes, float]:
    """Send bytes and end the sending side; return all bytes until the gateway closes, and the seconds until then."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(data)
        time.sleep(pause_s)
        connection.shutdown(socket.SHUT_WR)
        begun, said = time.monotonic(), b""
        while more := connection.recv(100_000):
            said += more
        return said, time.monotonic() - begun


GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
CLASSIC = post(b"/v1/sentiment", TEXT)
CHUNKED = post(b"/v1/sentiment", CHUNKS, fields=b"Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize(
    ("data", "answers"),
    [
        (GET, 1),
        (CLASSIC, 1),
        (CHUNKED, 1),
        (CLASSIC + GET, 2),
        (GET + CHUNKED, 2),
        (CHUNKED + CHUNKED + GET, 3),
        (post(b"/v1/sentiment/batch", b'{"texts": ["good", "bad"]}'), 1),
    ],
)
def test_a_client_that_has_sent_all_gets_its_answers(stack: Any, data: bytes, answers: int) -> None:
    """By both parsers, one request or several; then the connection closes without a keep-alive wait."""
    said, seconds = told(stack, data)
    assert said.count(b"HTTP/1.1 200 OK") == answers, said
    assert seconds < 4  # the wait for a next request is 5 s


def test_a_picture_is_drawn_for_a_client_that_has_sent_all(stack: Any, astronaut: bytes) -> None:
    """The longest request, with the client's end in its middle."""
    request = post(b"/v1/detect", astronaut, b"image/jpeg").replace(
        b"Host: localhost", b"Host: localhost\r\nAccept: image/jpeg", 1
    )
    said, _ = told(stack, request, pause_s=0.05)
    head, _, body = said.partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0]
    assert body.startswith(b"\xff\xd8")
    assert body.endswith(b"\xff\xd9")


@pytest.mark.parametrize("data", [CLASSIC[:-5], CHUNKED[:-5], GET[:-2], b"", CLASSIC + GET[:9]])
def test_incomplete_requests_are_not_waited_for(stack: Any, data: bytes) -> None:
    """The client will never complete them: the connection closes after the answers to complete ones."""
    said, seconds = told(stack, data)
    assert said.count(b"HTTP/1.1 ") == data.startswith(CLASSIC), said
    assert seconds < 4


def test_a_reset_ends_a_request(stack: Any) -> None:
    """The gateway goes on."""
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", stack.port), timeout=20)
        connection.sendall(CLASSIC)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert b"200 OK" in told(stack, CLASSIC)[0]
