"""The routes of the tasks, two for each entry of `TASKS`: one item, and a batch.

One list makes both what serves a request and what the OpenAPI document says. `app.api.application` calls `serve`
directly; a route to which somebody adds a FastAPI dependency is served through FastAPI, which runs it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.routing import APIRoute

from app import errors
from app.api import batch, formats, openapi, single
from app.api.parts import Parts
from app.http import problems
from app.tasks import TASKS
from app.tasks.base import Options

COMMON_ERRORS: tuple[type[errors.GatewayError], ...] = (
    errors.MalformedRequestError,
    errors.ForbiddenError,
    errors.ModelNotFoundError,
    errors.VersionNotFoundError,
    errors.NotAcceptableError,
    errors.RequestBodyTimeoutError,
    errors.BodyTooLargeError,
    errors.UnsupportedMediaTypeError,
    errors.InvalidParameterError,
    errors.InvalidTensorError,
    errors.OverloadedError,
    errors.InternalError,
    errors.UnsupportedError,
    errors.BackendError,
    errors.BackendUnavailableError,
    errors.ModelNotReadyError,
    errors.DeadlineExceededError,
)
INPUT_ERRORS: dict[str, tuple[type[errors.GatewayError], ...]] = {
    "image": (errors.ImageTooLargeError, errors.ImageUndecodableError),
    "text": (errors.TextEmptyError,),
}

Serve = Callable[[Request], Awaitable[Response]]


class TaskRoute(APIRoute):
    """A route of a task.

    Attributes:
        serve: answers a request, without FastAPI's dependencies and validation.

    """

    serve: Serve


def router(parts: Parts) -> APIRouter:
    """Return the routes of all tasks."""
    routes = APIRouter(prefix="/v1", tags=["tasks"], route_class=TaskRoute)
    for task in TASKS:
        possible = (*COMMON_ERRORS, *INPUT_ERRORS[task.input])
        options = formats.with_format(task)
        _add(
            routes,
            partial(single.serve, parts, task, options),
            options,
            path=f"/{task.route}",
            name=task.route,
            summary=task.summary,
            response_model=formats.answers(task),
            responses={200: openapi.success(task.example, task.pictures), **problems.responses(*possible)},
            openapi_extra=openapi.request(task, many=False),
        )
        _add(
            routes,
            partial(batch.serve, parts, task, task.options),
            task.options,
            path=f"/{task.route}/batch",
            name=f"{task.route}_batch",
            summary=f"{task.summary}, many at a time",
            response_model=openapi.batch_model(task),
            responses={
                200: openapi.success(openapi.batch_example(task)),
                **problems.responses(*possible, errors.BatchTooLargeError),
            },
            openapi_extra=openapi.request(task, many=True),
        )
    return routes


def _add(routes: APIRouter, serve: Serve, options_type: type[Options], **described: Any) -> None:
    async def endpoint(request: Request, options: Any) -> Response:
        return await serve(request)  # which reads the options itself; FastAPI documents them

    # Annotations of nested functions are texts here: FastAPI is told the types themselves.
    endpoint.__annotations__ = {"request": Request, "options": Annotated[options_type, Query()]}
    routes.add_api_route(endpoint=endpoint, methods=["POST"], **described)
    route = routes.routes[-1]
    assert isinstance(route, TaskRoute)  # noqa: S101 - the router's route class
    route.serve = serve
