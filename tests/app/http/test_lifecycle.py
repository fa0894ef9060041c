"""The lifecycle measures every request, and answers those that are cancelled at a stop."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import lifecycle
from app.http.drain import Drain
from app.telemetry.metrics import Metrics


class Call:
    """One POST without any byte of its body."""

    def __init__(self, app: ASGIApp) -> None:
        self.metrics = Metrics()
        self.sent: list[Message] = []
        self._app = lifecycle.Lifecycle(app, self.metrics, Drain())

    async def serve(self) -> None:
        """Serve it."""
        headers = [(b"content-length", b"9")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "query_string": b""}
        await self._app(scope, asyncio.Event().wait, self._send)  # type: ignore[arg-type]

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        text = asyncio.run(self.metrics.text()).decode()
        lines = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_lingering_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for discarding an unread body does not count as time of the answer."""
    monkeypatch.setattr(lifecycle, "LINGER_S", 0.5)
    call = Call(Response("early"))
    begun = time.monotonic()
    asyncio.run(call.serve())
    assert time.monotonic() - begun >= 0.5
    assert call.metric("gateway_request_seconds_count") == 1
    assert call.metric("gateway_request_seconds_sum") < 0.4


async def cancelled(call: Call) -> None:
    """Cancel a running call, as the server does at the end of its drain."""
    task = asyncio.create_task(call.serve())
    await asyncio.sleep(0.05)
    task.cancel()
    await task


def test_requests_cancelled_at_a_stop_are_answered_503(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled request is answered 503 `draining`, and counted."""
    monkeypatch.setattr(lifecycle, "LINGER_S", 0.05)

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(10)

    call = Call(slow)
    asyncio.run(cancelled(call))
    body = json.loads(b"".join(message.get("body", b"") for message in call.sent))
    assert (call.sent[0]["status"], body["code"], body["retryable"]) == (503, "draining", True)
    assert not call.sent[-1].get("more_body", False)
    assert call.metric('gateway_requests_total{code="draining"') == 1


def test_a_cancelled_answer_is_not_begun_again() -> None:
    """A request cancelled in the middle of its answer gets no second answer, and is counted."""

    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(10)

    call = Call(half)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(call))
    assert [message["type"] for message in call.sent] == ["http.response.start"]
    assert call.metric("gateway_requests_total") == 1


def test_a_stop_while_lingering_ends_the_answer() -> None:
    """An answered request whose body is being discarded gets the end of its answer."""
    call = Call(Response("early"))
    asyncio.run(cancelled(call))
    ends: list[Any] = [message.get("more_body") for message in call.sent]
    assert ends == [None, True, False]
