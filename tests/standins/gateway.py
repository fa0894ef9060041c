"""Stands in for the gateway before its Python client: gives the answers of a list, over httpx's own mock transport."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

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
class Script:
    """A gateway that gives the answers of a list, one after the other, and keeps what it was asked."""

    client: Any
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
    """Return what a gateway with too much to do answers."""
    return problem(429, "overloaded", retryable=True, retry_after=retry_after)


def result() -> httpx.Response:
    """Return one sentiment."""
    return httpx.Response(200, json=SENTIMENT, headers={"Server-Timing": "read;dur=0.10, triton;dur=2.50"})
