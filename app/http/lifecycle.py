"""The code around every request: its id, its access log line, its metrics, and the answer to an unexpected exception.

It is plain ASGI, because Starlette's BaseHTTPMiddleware hides the client's disconnect. When the client leaves, the
connection reports it at once (`app.http.connection`), and the request is cancelled: nobody waits for its answer. When a
request is answered before its body was read, the rest of the body is read and discarded for a moment before the
connection closes: closing it with unread bytes would reset it, and the client would never see the answer.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import TRACEPARENT, Context, request_id
from app.errors import DrainingError, GatewayError, InternalError
from app.http import problems
from app.http.drain import Drain
from app.telemetry.metrics import Metrics

LINGER_S = 2.0
CLIENT_LEFT = 499
"""The status in logs and metrics of a request whose client left before the answer; nginx uses the same number."""
QUIET_ROUTES = ("/livez", "/readyz", "/healthz", "/health", "/metrics")

logger = structlog.get_logger("gateway.access")


class Lifecycle:
    """The gateway's only middleware."""

    def __init__(self, app: ASGIApp, metrics: Metrics, drain: Drain) -> None:
        self._app = app
        self._metrics = metrics
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        method = scope["method"]
        if method == "HEAD":
            # HEAD is answered as GET (RFC 9110, 9.3.2); the server leaves out the content.
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        context = Context(request_id(headers.get("x-request-id")))
        state = scope.setdefault("state", {})
        state["context"] = context
        context.hang_up = state.get("hang_up")
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=context.request_id)
        trace = TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        if trace is not None:
            context.traceparent = trace[0]
            structlog.contextvars.bind_contextvars(trace_id=trace[1])
        exchange = _Exchange(headers, receive, send, context, self._drain)
        context.leave = exchange.leave
        try:
            with self._metrics.running.track_inprogress():
                await self._serve(scope, exchange, context)
        finally:
            context.leave = None
            for call in context.answered:
                call()
            self._record(method, scope, exchange, context)

    def _record(self, method: str, scope: Scope, exchange: _Exchange, context: Context) -> None:
        seconds = (exchange.ended or time.perf_counter()) - context.started
        if exchange.client_left:
            exchange.status, context.code = CLIENT_LEFT, "client_left"
        route = context.route or getattr(scope.get("route"), "path", "other")
        self._metrics.observe(route, exchange.status, context, seconds)
        level = logger.debug if route in QUIET_ROUTES else logger.info
        level(
            "answered",
            method=method,
            path=scope["path"] if scope["path"].isprintable() else repr(scope["path"]),
            status=exchange.status,
            code=context.code or None,
            ms=round(seconds * 1000, 1),
        )

    async def _serve(self, scope: Scope, exchange: _Exchange, context: Context) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if exchange.client_left:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]  # there is one: we run in it
                return
            # At the end of the drain the server cancels the running requests, and would answer a plain 500 itself.
            if exchange.status:
                raise
            await self._answer(DrainingError("The gateway stopped before it could answer."), scope, exchange, context)
        except Exception:
            structlog.get_logger(__name__).exception("unexpected exception in the gateway")
            if exchange.status:
                raise
            await self._answer(InternalError("The gateway failed on this request."), scope, exchange, context)

    async def _answer(self, error: GatewayError, scope: Scope, exchange: _Exchange, context: Context) -> None:
        context.code = error.code
        await problems.response(error, context.request_id)(scope, exchange.receive, exchange.send)


class _Exchange:
    """The messages of one request and its answer."""

    def __init__(self, headers: Headers, receive: Receive, send: Send, context: Context, drain: Drain) -> None:
        self._receive = receive
        self._send = send
        self._context = context
        self._drain = drain
        self._task = asyncio.current_task()
        self._body_read = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self.status = 0
        self.ended = 0.0
        """When the last byte of the answer was handed on, before the rest of a body is discarded; 0 until then."""
        self.client_left = False
        """Whether the client closed the connection before it was answered."""

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._body_read = True
            self.client_left = not self.status  # a client that has its answer may leave
        elif not message.get("more_body", False):
            self._body_read = True
        return message

    def leave(self) -> None:
        """Cancel the request, whose client has left, unless it is being answered."""
        if not self.status and self._task is not None:
            self.client_left = True
            self._task.cancel()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._complete_headers(message)
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        linger = last and not self._body_read
        await self._send({**message, "more_body": True} if linger else message)
        if last:
            self.ended = time.perf_counter()
        if linger:
            await self._discard_body()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    def _complete_headers(self, message: dict[str, Any] | Message) -> None:
        headers = MutableHeaders(raw=message.setdefault("headers", []))
        headers["X-Request-ID"] = self._context.request_id
        if self._context.spans:
            headers["Server-Timing"] = self._context.server_timing()
        if not self._body_read or self._drain.begun:
            headers["Connection"] = "close"

    async def _discard_body(self) -> None:
        try:
            async with asyncio.timeout(LINGER_S):
                while not self._body_read:
                    await self.receive()
        except (TimeoutError, asyncio.CancelledError):
            return  # cancelled when the server stops: the answer is out, only its end mark is missing
