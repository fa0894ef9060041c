"""Both clients behind one interface, and a gateway that gives the answers of a test's list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from triton_gateway_client import AsyncGateway, Gateway

Answer = httpx.Response | Exception
SENTIMENT = {
    "model": "minilm_sentiment",
    "version": "1",
    "request_id": "r",
    "label": "positive",
    "score": 0.75,
    "scores": [{"label": "positive", "score": 0.75}, {"label": "negative", "score": 0.25}],
    "usage": {"tokens": 3, "truncated": False},
}


@dataclass
class Client:
    """One of the two clients: calls it, and closes it."""

    is_async: bool

    def __call__(
        self, base_url: str, name: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        """Return what the method `name` of a client made with `options` returns."""
        if not self.is_async:
            with Gateway(base_url, **(options or {})) as gateway:
                return getattr(gateway, name)(*args, **kwargs)

        async def call() -> Any:
            async with AsyncGateway(base_url, **(options or {})) as gateway:
                return await getattr(gateway, name)(*args, **kwargs)

        return asyncio.run(call())


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest) -> Client:
    """Return each client in its turn."""
    return Client(request.param == "async")


@dataclass
class Script:
    """A gateway that gives the answers of a list, one after the other, and records its requests."""

    client: Client
    answers: list[Answer | Callable[[httpx.Request], httpx.Response]]
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, name: str, *args: Any, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """Call a client's method."""
        transport = httpx.MockTransport(self._answer)
        http: Any = (
            httpx.AsyncClient(transport=transport) if self.client.is_async else httpx.Client(transport=transport)
        )
        return self.client("http://gateway", name, *args, options={"http": http, **(options or {})}, **kwargs)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[len(self.asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, httpx.Response):  # which is read once only, and may be given again
            return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)
        return answer(request)


@pytest.fixture
def script(client: Client) -> Callable[..., Script]:
    """Return the function that makes a scripted gateway from its answers."""
    return lambda *answers: Script(client, list(answers))


def problem(status: int, code: str, *, retryable: bool, retry_after: str | None = None) -> httpx.Response:
    """Return a problem as the gateway answers it."""
    content = describe(status, code, retryable=retryable)
    headers = {"Content-Type": "application/problem+json"} | ({"Retry-After": retry_after} if retry_after else {})
    return httpx.Response(status, content=json.dumps(content), headers=headers)


def describe(status: int, code: str, *, retryable: bool) -> dict[str, Any]:
    """Return the content of a problem."""
    return {
        "type": f"urn:triton-gateway:problem:{code}",
        "title": code,
        "status": status,
        "detail": "Sentence.",
        "code": code,
        "request_id": "r",
        "retryable": retryable,
    }


def overloaded(retry_after: str = "1") -> httpx.Response:
    """Return the answer of an overloaded gateway."""
    return problem(429, "overloaded", retryable=True, retry_after=retry_after)


def result() -> httpx.Response:
    """Return one sentiment."""
    return httpx.Response(200, json=SENTIMENT, headers={"Server-Timing": "read;dur=0.10, triton;dur=2.50"})
