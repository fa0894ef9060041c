"""Foreign host names and foreign pages on real connections, by both parsers."""

from __future__ import annotations

import json
import socket
import time
from http.client import HTTPResponse
from typing import Any

import pytest

BODY = b'{"text": "I love this camera."}'
PLAIN = b"Content-Length: %d\r\n" % len(BODY)
PARSERS = {
    "httptools": (PLAIN, BODY),
    "h11": (b"Transfer-Encoding: chunked\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    "h2c": (
        PLAIN + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        BODY,
    ),
}


def ask(stack: Any, request: bytes) -> tuple[int, str, bytes]:
    """Send bytes; return status, request id and content of the answer."""
    with socket.create_connection(("127.0.0.1", stack.port), timeout=20) as connection:
        connection.sendall(request)
        response = HTTPResponse(connection)
        response.begin()
        return response.status, response.getheader("X-Request-ID") or "", response.read()


def post(stack: Any, parser: str, *fields: bytes, target: bytes = b"/v1/sentiment") -> tuple[int, Any]:
    """Send a request for a sentiment; return status and content of the answer."""
    headers, body = PARSERS[parser]
    head = b"POST " + target + b" HTTP/1.1\r\nContent-Type: application/json\r\n" + b"\r\n".join(fields) + b"\r\n"
    status, request_id, content = ask(stack, head + headers + b"\r\n" + body)
    answer = json.loads(content)
    assert request_id == answer["request_id"]
    return status, answer.get("code", "positive")


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("host", [b"localhost", b"LOCALHOST.:80", b"127.0.0.1:1", b"[::1]", b"10.0.0.1"])
def test_addresses_are_allowed(stack: Any, parser: str, host: bytes) -> None:
    """Any address of the machine, and localhost."""
    assert post(stack, parser, b"Host: " + host) == (200, "positive")


@pytest.mark.parametrize("parser", PARSERS)
@pytest.mark.parametrize("host", [b"evil.example", b"127.0.0.1.nip.io", b"2130706433", b"0x7f.1", b"localhost.evil"])
def test_foreign_host_names_are_refused(stack: Any, parser: str, host: bytes) -> None:
    """Otherwise a page could rebind its own name to the gateway's address: DNS rebinding."""
    assert post(stack, parser, b"Host: " + host) == (403, "forbidden")


@pytest.mark.parametrize("parser", PARSERS)
def test_foreign_pages_are_refused(stack: Any, parser: str) -> None:
    """A foreign origin, another port of this machine, a hidden origin."""
    host = b"Host: localhost:8080"
    assert post(stack, parser, host, b"Origin: http://localhost:8080") == (200, "positive")
    for origin in (b"https://evil.example", b"http://localhost:3000", b"null"):
        assert post(stack, parser, host, b"Origin: " + origin) == (403, "forbidden")


@pytest.mark.parametrize("parser", PARSERS)
def test_the_host_in_the_target_counts(stack: Any, parser: str) -> None:
    """RFC 9112, 3.2.2: if the target is a URL, the header is ignored."""
    evil, own = b"http://evil.example/v1/sentiment", b"http://127.0.0.1/v1/sentiment"
    assert post(stack, parser, b"Host: localhost", target=evil) == (403, "forbidden")
    assert post(stack, parser, b"Host: evil.example", target=own) == (200, "positive")


@pytest.mark.parametrize("host", [b"", b"Host:\r\n", b"Host: localhost\r\n"])
def test_old_probes_are_served(stack: Any, host: bytes) -> None:
    """HTTP/1.0 allows requests without a host, and no browser sends one."""
    assert ask(stack, b"GET /livez HTTP/1.0\r\n" + host + b"\r\n")[0] == 200


def test_a_refusal_is_logged(stack: Any) -> None:
    """It has an access log line like every other request."""
    head = b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nX-Request-ID: who-was-that\r\n\r\n"
    assert ask(stack, head)[0] == 403
    lines: list[str] = []
    begun = time.monotonic()
    while not lines and time.monotonic() - begun < 10:  # it is written after the answer
        lines = [line for line in (stack.folder / "gateway.out").read_text().splitlines() if "who-was-that" in line]
    (line,) = lines
    assert "code=forbidden" in line
    assert "path=/metrics" in line
