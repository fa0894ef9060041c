"""Images by URL: within the request's deadline and the process's memory, and never inflated."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fastapi import Request

from app.context import Deadline
from app.errors import (
    DeadlineExceededError,
    ImageUndecodableError,
    MalformedRequestError,
    OverloadedError,
)
from app.http.body import Body
from app.http.fetch import Fetch
from app.memory import Budget
from app.settings import Settings


class Pictures(BaseHTTPRequestHandler):
    """A host: /plain, /slow, and /packed, which is compressed whatever the client accepts."""

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/slow":
            time.sleep(2)
        self.send_response(200)
        if self.path == "/packed":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("X-Accepted", self.headers["Accept-Encoding"])
        self.end_headers()
        accepted = self.headers["Accept-Encoding"].encode()
        self.wfile.write(gzip.compress(bytes(100_000)) if self.path == "/packed" else accepted.ljust(1000))

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """Return the address of a host of pictures."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetched(url: object, budget: Budget | None = None, left_s: float = 5) -> bytes:
    """Fetch an image for a request."""

    async def ask() -> bytes:
        fetch = Fetch(Settings(image_url_hosts=("127.0.0.1",)))
        try:
            body = Body(Request({"type": "http"}), budget or Budget(10_000), Deadline.after(1))
            return await fetch.image(url, body, Deadline.after(left_s))
        finally:
            await fetch.close()

    return asyncio.run(ask())


def test_nothing_compressed_is_asked_for(host: str) -> None:
    """The request asks the host for uncompressed bytes."""
    assert fetched(f"{host}/plain").strip() == b"identity"


def test_compressed_answers_are_refused(host: str) -> None:
    """No content encoding is undone: a few bytes could become gigabytes."""
    with pytest.raises(ImageUndecodableError, match="encoding"):
        fetched(f"{host}/packed")


def test_a_slow_host_ends_at_the_requests_deadline(host: str) -> None:
    """A slow host is given up when the request's deadline passes."""
    begun = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        fetched(f"{host}/slow", left_s=0.3)
    assert time.monotonic() - begun < 1.5


def test_a_host_slower_than_the_fetch_timeout_is_the_urls_fault(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With time left, a failed fetch is not a missed deadline."""
    monkeypatch.setattr("app.http.fetch.TIMEOUT_S", 0.3)
    with pytest.raises(ImageUndecodableError):
        fetched(f"{host}/slow")


def test_fetched_bytes_count_until_the_request_is_answered(host: str) -> None:
    """The process holds them like those of a body."""
    with pytest.raises(OverloadedError):
        fetched(f"{host}/plain", Budget(999))
    budget = Budget(1000)
    fetched(f"{host}/plain", budget)
    assert budget.held == 1000
    body = Body(Request({"type": "http"}), budget, 1)
    budget.give_back(1000)
    with body:
        body.hold(600)
        assert budget.held == 600
    assert budget.held == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1/\ud800", "http://\ud800/", "a.jpg", 5, "\x00"])
def test_invalid_urls_are_refused(url: object) -> None:
    """Any invalid URL, even half a surrogate pair, is an error of the request."""
    with pytest.raises(MalformedRequestError):
        fetched(url)
