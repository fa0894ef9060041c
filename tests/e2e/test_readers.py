"""Clients that do not read their answers, or read them slowly."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

TIMEOUT_S = 1.0
ROOM = 10_000_000


@pytest.fixture(scope="module")
def gateway(stack: Any, make_gateway: Callable[..., Any]) -> Iterator[Any]:
    """Return a gateway before the shared Triton that waits a second for its clients, with little room."""
    made = make_gateway(stack, GATEWAY_WRITE_TIMEOUT_S=str(TIMEOUT_S), GATEWAY_MAX_BYTES_IN_FLIGHT=str(ROOM))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def picture() -> bytes:
    """Return a picture whose drawn PNG takes megabytes."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 255, (1200, 1600, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    return buffer.getvalue()


def connect(gateway: Any, window: int = 4096) -> socket.socket:
    """Return a connection of a client with a small receive buffer."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    made.settimeout(20)
    made.connect(("127.0.0.1", gateway.port))
    return made


def ask_drawn(connection: socket.socket, picture: bytes, *, chunked: bool = False) -> None:
    """Request a drawn PNG, by the parser for plain requests or by h11."""
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(picture)
    head = b"POST /v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nAccept: image/png\r\n%s\r\n\r\n"
    connection.sendall(head % length)
    connection.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(picture), picture) if chunked else picture)


def held(gateway: Any) -> float:
    """Return the gateway's metric of held bytes."""
    lines = httpx.get(f"{gateway.url}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("gateway_body_bytes "))


def within(seconds: float, condition: Callable[[], object]) -> float:
    """Wait until something holds; return the seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.05)
    return time.monotonic() - begun


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("drip", [False, True])
def test_unread_pictures_are_dropped(gateway: Any, picture: bytes, chunked: bool, drip: bool) -> None:
    """They count against the budget while they wait, and go soon, even if the client reads a byte at times."""
    with connect(gateway) as connection:
        ask_drawn(connection, picture, chunked=chunked)
        within(20, lambda: held(gateway) > 1_000_000)
        begun = time.monotonic()
        while held(gateway):
            assert time.monotonic() - begun < 4 * TIMEOUT_S + 4
            if drip:
                connection.recv(1)
            time.sleep(0.1)
        assert httpx.get(f"{gateway.url}/livez").status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_slow_reader_gets_all(gateway: Any, picture: bytes, chunked: bool) -> None:
    """A picture that takes several timeouts to read arrives complete."""
    with connect(gateway, 65_536) as connection:
        ask_drawn(connection, picture, chunked=chunked)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        size = int(answer.headers["content-length"])
        begun, left = time.monotonic(), size
        while left:
            part = answer.read(min(left, size // 100))
            assert part
            left -= len(part)
            time.sleep(0.03)
        assert size > 1_000_000
        assert time.monotonic() - begun > 2.5 * TIMEOUT_S


def test_pictures_without_room_are_refused(gateway: Any, picture: bytes) -> None:
    """While many clients do not read, the next picture is refused before drawing; later it is served."""
    connections = [connect(gateway) for _ in range(4)]
    headers = {"Content-Type": "image/jpeg"}
    codes = set()
    for connection in connections:
        ask_drawn(connection, picture)
    url = f"{gateway.url}/v1/detect"
    for _ in range(40):
        codes.add(httpx.post(url, content=picture, headers={**headers, "Accept": "image/png"}, timeout=30).status_code)
        assert held(gateway) <= ROOM
        if 429 in codes:
            break
    assert 429 in codes
    for connection in connections:
        connection.close()
    within(20, lambda: not held(gateway))
    assert httpx.post(url, content=picture, headers={**headers, "Accept": "image/png"}, timeout=30).status_code == 200


def test_many_requests_whose_answers_nobody_reads(gateway: Any) -> None:
    """The next request waits for the last answer: little is held per connection, and nothing in the end."""
    process = psutil.Process(gateway.gateway.pid)
    httpx.get(f"{gateway.url}/openapi.json")
    before, fds = process.memory_info().rss, process.num_fds()
    connections = [connect(gateway) for _ in range(30)]
    for connection in connections:
        connection.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
    begun = time.monotonic()
    text = httpx.post(f"{gateway.url}/v1/sentiment", json={"text": "I love it"}, timeout=10)
    assert text.json()["label"] == "positive"
    assert time.monotonic() - begun < 5
    assert process.memory_info().rss - before < 30 * 1_000_000
    within(10, lambda: process.num_fds() <= fds + 3 and not held(gateway))
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("unusual", [b"", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"])
def test_requests_ahead_are_answered_to_a_slow_reader(gateway: Any, unusual: bytes) -> None:
    """All in order, even those that had to wait until earlier answers were read."""
    with connect(gateway) as connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % unusual * 12)
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.5)
        said = b""
        while more := connection.recv(20_000):
            said += more
        assert said.count(b"HTTP/1.1 200 OK") == 12
