"""The only place that maps to and from httpx: a step's request becomes httpx's, and httpx's errors become ours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

from triton_gateway_client.errors import ConnectionFailedError, GatewayError
from triton_gateway_client.exchange import Deadline, Reply, Send, late
from triton_gateway_client.network import Left

CONNECT_TIMEOUT_S = 5.0
"""A connection that takes longer fails and is retried while time is left."""
CONNECTION_ERRORS = (httpx.NetworkError, httpx.ConnectTimeout, httpx.RemoteProtocolError)
"""Failures after which a retry may succeed. Others come from the request, the set-up or the answer, and would recur."""
KEY = re.compile(r"[!-~]+")


class _Timeouts(Mapping[str, float]):
    """httpx's timeouts of one request: the time left when one is looked up. `network` updates it at every wait."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __getitem__(self, name: str) -> Left:
        return Left(self._deadline, CONNECT_TIMEOUT_S) if name == "connect" else Left(self._deadline)

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


@dataclass(frozen=True)
class Origin:
    """The gateway's address and API key."""

    base_url: str
    api_key: str | None = None

    def __post_init__(self) -> None:
        if httpx.URL(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url must begin with http:// or https://, not be '{self.base_url}'")
        if self.api_key is not None and not KEY.fullmatch(self.api_key):
            raise ValueError("api_key must be visible ASCII characters, without spaces")

    def __repr__(self) -> str:
        return self.base_url

    def request(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """Return a step's request as httpx's; a header tells the gateway how much time is left."""
        request, payload = send.request, send.request.payload
        headers = {
            "Accept": "application/json",
            "X-Request-ID": request.request_id,
            "X-Request-Timeout-Ms": str(max(1, int(send.deadline.left() * 1000))),
        }
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        if payload.media_type is not None:
            headers["Content-Type"] = payload.media_type
        return http.build_request(
            request.method,
            self.base_url.rstrip("/") + request.path,
            params=request.query,
            headers=headers,
            content=payload.content,
            files=payload.files or None,
            extensions={"timeout": _Timeouts(send.deadline)},
        )


def reply(response: httpx.Response, body: bytes) -> Reply:
    """Return httpx's answer as ours."""
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, body)


def failure(error: httpx.RequestError, send: Send) -> GatewayError:
    """Return the error of a request without an answer: the deadline passed, or the connection failed."""
    expired = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
    if expired or send.deadline.left() <= 0:
        found = late(send.request)
    else:
        found = ConnectionFailedError(
            f"No answer came: {str(error) or type(error).__name__}",
            code="connection_failed",
            request_id=send.request.request_id,
            retryable=isinstance(error, CONNECTION_ERRORS),
        )
    found.__cause__ = error
    return found
