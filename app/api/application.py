"""The gateway's ASGI application: every request through its lifecycle and the door, then to a task's route or FastAPI.

    uvicorn -> Gateway -> Lifecycle -> Door -> a task's route
                                            -> FastAPI's routes

FastAPI's own work on a request (matching routes, dependencies, exit stacks) takes longer than a task's route, which
needs none of it. So task routes are called directly, except those with dependencies, which FastAPI serves.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NoReturn

from fastapi import FastAPI, Request
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import iter_route_contexts
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api import failures
from app.api.tasks import Serve, TaskRoute
from app.errors import GatewayError
from app.http.drain import Drain
from app.http.lifecycle import Lifecycle
from app.security.door import Door
from app.security.origins import Cors
from app.settings import Settings
from app.telemetry.metrics import Metrics


class Gateway(FastAPI):
    """The gateway's ASGI application."""

    def __init__(self, settings: Settings, metrics: Metrics, drain: Drain, **options: Any) -> None:
        # Redirects to a path with or without a slash would name the host that the client named.
        super().__init__(**options, redirect_slashes=False)
        self._door = Door(settings)
        self._inside: ASGIApp = Cors(self._serve, settings.cors_origins) if settings.cors_origins else self._serve
        self._lifecycle = Lifecycle(self._enter, metrics, drain)
        failures.add_to(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "http":
            await self._lifecycle(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope = self._door.enter(scope)
            await self._inside(scope, receive, send)
        except GatewayError as error:
            await failures.answer(Request(scope), error)(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        serve = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        if serve is None:
            await super().__call__(scope, receive, send)
            return
        scope["state"]["context"].route = scope["path"]
        request = Request(scope, receive)
        try:
            response = await serve(request)
        except GatewayError as error:
            response = failures.answer(request, error)
        await response(scope, receive, send)

    @cached_property
    def _direct(self) -> dict[str, Serve]:
        """The task routes that are called directly, by path: those without dependencies."""
        return {
            str(context.path): context.original_route.serve
            for context in iter_route_contexts(self.routes)
            if isinstance(context.original_route, TaskRoute) and not context.dependant.dependencies
        }

    def add_middleware(self, *_: object, **__: object) -> NoReturn:
        """Refuse: task routes bypass FastAPI's middleware. Code around every request belongs in the `Lifecycle`."""
        raise RuntimeError("Task routes bypass middleware: put code around every request into app.http.lifecycle.")

    def build_middleware_stack(self) -> ASGIApp:
        """Return FastAPI's routes with the handlers of failures; the lifecycle around them answers other exceptions."""
        handlers: dict[Any, Any] = dict(self.exception_handlers)
        return ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=handlers)
