"""The one seam to httpx: a step's request becomes httpx's, and every failure of httpx's becomes ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import httpx

from triton_gateway_client.errors import ConnectionFailedError, GatewayError
from triton_gateway_client.exchange import Deadline, Reply, Send, late

CONNECT_S = 5.0
"""A connection that is not there by then is tried again, while there is time."""


class _Timeouts(Mapping[str, float]):
    """httpx's timeouts of one request. Each is for one wait of many, so each is what is left when it begins."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline

    def __getitem__(self, name: str) -> float:
        left = max(0.001, self._deadline.left())
        return min(left, CONNECT_S) if name == "connect" else left

    def __iter__(self) -> Iterator[str]:
        return iter(("connect", "read", "write", "pool"))

    def __len__(self) -> int:
        return 4


@dataclass(frozen=True)
class Origin:
    """Where the gateway is, and the key that it asks for."""

    base_url: str
    api_key: str | None = None

    def __post_init__(self) -> None:
        if httpx.URL(self.base_url).scheme not in ("http", "https"):
            raise ValueError(f"base_url must begin with http:// or https://, not be '{self.base_url}'")

    def __repr__(self) -> str:
        return self.base_url

    def request(self, http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
        """Return a step's request as httpx's, telling the gateway how much time is left."""
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
    """Return why no answer came: the time was over, or the connection failed."""
    expired = isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout)
    if expired or send.deadline.left() <= 0:
        found = late(send.request)
    else:
        found = ConnectionFailedError(
            f"No answer came: {error or type(error).__name__}",
            code="connection_failed",
            request_id=send.request.request_id,
            retryable=True,
        )
    found.__cause__ = error
    return found
