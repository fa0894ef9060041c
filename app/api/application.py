"""The way in: every request through the envelope, then a task's straight to its endpoint, all others to FastAPI.

    uvicorn -> Gateway -> Envelope -> Door -> endpoint of a task
                                           -> FastAPI's routes

What FastAPI does for a request on its way (matching routes, dependencies, exit stacks) takes longer than what a task's
endpoint does, and a task needs none of it. FastAPI documents these routes all the same, and answers wrong methods.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import failures
from app.errors import GatewayError
from app.http.drain import Drain
from app.http.lifecycle import Envelope
from app.security.door import Door
from app.security.origins import Cors
from app.settings import Settings
from app.telemetry.metrics import Metrics

Endpoint = Callable[[Request], Awaitable[Response]]


class Gateway(FastAPI):
    """The gateway's ASGI application.

    Args:
        endpoints: what serves POST requests, by path.

    """

    def __init__(
        self, endpoints: Mapping[str, Endpoint], settings: Settings, metrics: Metrics, drain: Drain, **options: Any
    ) -> None:
        # Redirects to a path with or without a slash would name the host that the client named.
        super().__init__(**options, redirect_slashes=False)
        self._endpoints = endpoints
        self._door = Door(settings)
        self._inside: ASGIApp = Cors(self._serve, settings.cors_origins) if settings.cors_origins else self._serve
        self._envelope = Envelope(self._enter, metrics, drain)
        failures.add_to(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            await self._envelope(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope = self._door.enter(scope)
            await self._inside(scope, receive, send)
        except GatewayError as error:
            await failures.answer(Request(scope), error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._endpoints.get(scope["path"]) if scope["method"] == "POST" else None
        if endpoint is None:
            await super().__call__(scope, receive, send)
            return
        scope["state"]["context"].route = scope["path"]
        request = Request(scope, receive)
        try:
            response = await endpoint(request)
        except GatewayError as error:
            response = failures.answer(request, error)
        await response(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's own part; the envelope, around it, answers what it raises."""
        handlers: dict[Any, Any] = dict(self.exception_handlers)
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=handlers)
