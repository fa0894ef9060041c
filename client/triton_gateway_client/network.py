"""The network layer of the synchronous client: every wait ends at the request's deadline.

httpcore looks a timeout up once for an answer's headers and once for its body, and applies it to each read. A server
that sends a byte now and then could hold a call forever. Here each read and write computes the time left. The
asynchronous client does not need this, because asyncio cancels a wait.
"""

from __future__ import annotations

import math
import ssl
from typing import Any, Self

import httpcore
import httpx

from triton_gateway_client.exchange import Deadline

PIECE_BYTES = 65536
"""Bytes per write; the deadline is checked between writes."""


class Left(float):
    """Seconds left for a wait that starts now; always above 0. Call `now()` again before a later wait."""

    _deadline: Deadline
    _most: float

    def __new__(cls, deadline: Deadline, most: float = math.inf) -> Self:
        """Return the seconds left until the deadline, `most` at most."""
        left = super().__new__(cls, max(0.001, min(most, deadline.left())))
        left._deadline, left._most = deadline, most
        return left

    def now(self) -> float:
        """Return the seconds left now; 0 or less when the deadline has passed."""
        return min(self._most, self._deadline.left())


def client() -> httpx.Client:
    """Return an httpx client whose connections, including those to proxies, keep deadlines."""
    made = httpx.Client()
    for transport in (made._transport, *made._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            # httpcore takes a network backend, but httpx does not pass one on; a version that renames this raises here.
            pool = transport._pool
            pool._network_backend = _Backend(pool._network_backend)
    return made


class _Backend(httpcore.NetworkBackend):
    """Connects as httpcore does."""

    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _Stream(self._backend.connect_tcp(*args, **kwargs))


class _Stream(httpcore.NetworkStream):
    """A connection whose waits end at the deadline of the request that it carries."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _until(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), PIECE_BYTES):
            self._stream.write(buffer[begin : begin + PIECE_BYTES], _until(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, _until(timeout, httpcore.ConnectTimeout)))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _until(timeout: float | None, expired: type[httpcore.TimeoutException]) -> float | None:
    if not isinstance(timeout, Left):
        return timeout
    left = timeout.now()
    if left <= 0:
        raise expired("the deadline has passed")
    return left
