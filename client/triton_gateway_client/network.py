"""The network under the synchronous client: every wait for it ends at the request's deadline.

httpcore asks for a timeout once for all the headers of an answer and once for its body, and gives it to each of their
reads: a server that sends a byte now and then is waited for without end. Here each read and write asks for itself.
"""

from __future__ import annotations

import math
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import httpcore
import httpx

from triton_gateway_client.exchange import Deadline

PIECE_BYTES = 65536
"""Written at once; between two pieces the deadline is looked at."""
COUNTERPARTS: dict[type[Exception], type[httpx.TransportError]] = {
    httpcore.TimeoutException: httpx.TimeoutException,
    httpcore.ConnectTimeout: httpx.ConnectTimeout,
    httpcore.ReadTimeout: httpx.ReadTimeout,
    httpcore.WriteTimeout: httpx.WriteTimeout,
    httpcore.PoolTimeout: httpx.PoolTimeout,
    httpcore.NetworkError: httpx.NetworkError,
    httpcore.ConnectError: httpx.ConnectError,
    httpcore.ReadError: httpx.ReadError,
    httpcore.WriteError: httpx.WriteError,
    httpcore.ProtocolError: httpx.ProtocolError,
    httpcore.LocalProtocolError: httpx.LocalProtocolError,
    httpcore.RemoteProtocolError: httpx.RemoteProtocolError,
    httpcore.UnsupportedProtocol: httpx.UnsupportedProtocol,
    httpcore.ProxyError: httpx.ProxyError,
}


class Left(float):
    """The seconds that a wait may last that begins now, and more than 0; a later one asks anew by `now`."""

    _deadline: Deadline
    _most: float

    def __new__(cls, deadline: Deadline, most: float = math.inf) -> Self:
        """Return what is left until the deadline, `most` at most."""
        left = super().__new__(cls, max(0.001, min(most, deadline.left())))
        left._deadline, left._most = deadline, most
        return left

    def now(self) -> float:
        """Return what is left by now; 0 or less when the deadline has passed."""
        return min(self._most, self._deadline.left())


def client(base_url: str) -> httpx.Client:
    """Return a client for a gateway. Through a proxy that the environment names, waits are bounded by httpx alone."""
    url, proxies = httpx.URL(base_url), urllib.request.getproxies()
    if (url.scheme in proxies or "all" in proxies) and not urllib.request.proxy_bypass(url.host):
        return httpx.Client()
    return httpx.Client(transport=_Transport())


class _Transport(httpx.BaseTransport):
    """httpx's own transport, over streams that keep deadlines."""

    def __init__(self) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=100,  # this, and the next two: as httpx sets them
            max_keepalive_connections=20,
            keepalive_expiry=5.0,
            network_backend=_Backend(),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        with _counterparts():
            answer = self._pool.handle_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer), extensions=dict(answer.extensions)
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    """An answer's body, read as it arrives."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _counterparts():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        with _counterparts():
            self._answer.close()


@contextmanager
def _counterparts() -> Iterator[None]:
    """Raise httpcore's errors as httpx's."""
    try:
        yield
    except tuple(COUNTERPARTS) as error:
        kind = next(kind for kind in type(error).__mro__ if kind in COUNTERPARTS)
        raise COUNTERPARTS[kind](str(error)) from error


class _Backend(httpcore.SyncBackend):
    """Connects as httpcore does."""

    def connect_tcp(self, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(*args, **kwargs))


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
