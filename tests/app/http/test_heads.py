"""Heads that httptools may parse; a head whose length two parsers could read differently goes to h11."""

from __future__ import annotations

import pytest

from app.http import connection

START = b"POST /v1/sentiment HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (START + b"\r\n", 0),
        (START + b"Content-Length: 5\r\n\r\n", 5),
        (START + b"content-length:\t0012 \r\n\r\n", 12),
        (START.replace(b"\r\n", b"\n") + b"Content-Length: 5\n\n", 5),
        (b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 0),
    ],
)
def test_a_plain_head_tells_the_length_of_its_body(head: bytes, size: int) -> None:
    assert connection._plain(head) == size


@pytest.mark.parametrize(
    "head",
    [
        START + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
        START + b"Content-Length: 5, 5\r\n\r\n",
        START + b"Content-Length: +5\r\n\r\n",
        START + b"Content-Length : 5\r\n\r\n",
        START + b"Content-Length: " + b"1" * 19 + b"\r\n\r\n",
        START + b"Transfer-Encoding: chunked\r\n\r\n",
        START + b"transfer-encoding\t: chunked\r\n\r\n",
        START + b"Upgrade: h2c\r\n\r\n",
        START + b"Host: other\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT other:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        START + b"X: " + b"x" * connection.MAX_HEAD_BYTES + b"\r\n\r\n",
    ],
    ids=range(13),
)
def test_any_other_head_is_not_plain(head: bytes) -> None:
    """Two lengths or hosts, another framing or target, or too many bytes."""
    assert connection._plain(head) is None
