"""Requests as bytes on a connection: in pieces, pipelined, with unusual or endless heads."""

from __future__ import annotations

import re
import socket
from http.client import HTTPResponse
from typing import Any

import pytest

BODY = b'{"text": "I love this camera."}'
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


def head(*fields: bytes) -> bytes:
    """Return the head of a request for a sentiment."""
    kind = b"Content-Type: application/json\r\n"
    return b"POST /v1/sentiment HTTP/1.1\r\nHost: localhost\r\n" + kind + b"".join(fields) + b"\r\n"


@pytest.fixture
def connection(stack: Any) -> Any:
    """Return a connection to the gateway."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield made


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer: its status and its body."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, response.read()


def is_positive(connection: socket.socket) -> bool:
    """Return whether the answer is that to the text."""
    status, body = answer(connection)
    return status == 200 and b'"positive"' in body


@pytest.mark.parametrize("fields", [(LENGTH,), (LENGTH, H2C), (H2C, LENGTH)])
def test_a_request_in_pieces(connection: socket.socket, fields: tuple[bytes, ...]) -> None:
    """The head byte by byte, then half of the body."""
    for byte in head(*fields):
        connection.sendall(bytes([byte]))
    connection.sendall(BODY[:10])
    connection.sendall(BODY[10:])
    assert is_positive(connection)


@pytest.mark.parametrize("second", [LENGTH, LENGTH + H2C, LENGTH + b"X-Long: " + b"a" * 10_000 + b"\r\n"])
def test_a_connection_is_kept(connection: socket.socket, second: bytes) -> None:
    """One request after the other, plain ones and those for h11."""
    for fields in (LENGTH, second, LENGTH):
        connection.sendall(head(fields) + BODY)
        assert is_positive(connection)


def test_chunks(connection: socket.socket) -> None:
    """A body without a Content-Length."""
    connection.sendall(head(CHUNKED))
    for part in (BODY[:7], BODY[7:]):
        connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
    connection.sendall(b"0\r\n\r\n")
    assert is_positive(connection)


def test_requests_ahead_of_their_answers(connection: socket.socket) -> None:
    """Pipelined requests are answered in order."""
    negative = b'{"text": "This is awful."}'
    length = b"Content-Length: %d\r\n" % len(negative)
    connection.sendall(head(LENGTH) + BODY + head(length) + negative)
    said, labels = b"", []
    while len(labels) < 2:
        more = connection.recv(10_000)
        assert more, said
        said += more
        labels = re.findall(rb'"request_id":"[^"]+","label":"([a-z]+)"', said)
    assert labels == [b"positive", b"negative"]


def test_a_request_ahead_that_is_unusual_or_comes_in_pieces(connection: socket.socket) -> None:
    """Bytes after a request in progress wait, and the next request keeps its body."""
    second = head(LENGTH, H2C) + BODY
    connection.sendall(head(LENGTH) + BODY + second[:40])
    connection.sendall(second[40:])
    said = b""
    while said.count(b"HTTP/1.1 200") < 2:
        more = connection.recv(10_000)
        assert more, said
        said += more


def test_junk_after_a_request_does_not_spoil_its_answer(connection: socket.socket) -> None:
    """The answer comes first, then the refusal."""
    connection.sendall(head(LENGTH) + BODY + b"\x00\x01 junk\r\n\r\n")
    said = b""
    while b"HTTP/1.1 400" not in said:
        more = connection.recv(10_000)
        assert more, said
        said += more
    assert said.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n"])
def test_a_request_without_one_host_is_refused(connection: socket.socket, hosts: bytes) -> None:
    """RFC 9112, 3.2."""
    connection.sendall(b"GET /livez HTTP/1.1\r\n" + hosts + b"\r\n")
    assert answer(connection)[0] == 400


@pytest.mark.parametrize("fields", [b"Content-Length: 5\r\nContent-Length: 7\r\n", b"Content-Length: 5, 5\r\n"])
def test_two_lengths_are_refused(connection: socket.socket, fields: bytes) -> None:
    """A reader of the other length would see another request."""
    connection.sendall(head(fields) + BODY)
    assert answer(connection)[0] == 400


@pytest.mark.parametrize("size", [70_000, 1_000_000])
def test_a_head_without_an_end_is_refused(connection: socket.socket, size: int) -> None:
    """It is not kept for ever."""
    try:
        connection.sendall(head().removesuffix(b"\r\n") + b"X-Long: " + b"a" * size)
        status, _ = answer(connection)
    except (ConnectionError, BrokenPipeError):
        return
    assert status in (400, 431)


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n", b"POST /v1/sentiment HTTP/9.9\r\n\r\n"]
)
def test_bytes_that_are_not_http_are_refused(connection: socket.socket, junk: bytes) -> None:
    """The connection is answered or closed; the gateway goes on."""
    connection.sendall(junk)
    assert connection.recv(100)[:10] in (b"HTTP/1.1 4", b"")
