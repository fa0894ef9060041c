"""Every exception of a route becomes a problem answer; those that are not the caller's fault are logged too."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app import errors
from app.context import Context
from app.dialects import hf
from app.http import problems
from app.http.validation import sentence

SENTENCES = {
    errors.MalformedRequestError.status: "The request cannot be read.",
    errors.NotFoundError.status: "There is nothing at this path; see /docs.",
    errors.MethodNotAllowedError.status: "This path does not take this method.",
}
"""Details in place of those of FastAPI and Starlette, by status."""

logger = structlog.get_logger(__name__)


def add_to(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(errors.GatewayError, _gateway_error)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)


def answer(request: Request, error: errors.GatewayError, headers: dict[str, str] | None = None) -> Response:
    """Return the problem answer; log the cause of a failure that is not the caller's."""
    context = Context.of(request)
    context.code = error.code
    if error.status >= 500:
        logger.warning("request failed", code=error.code, model=error.model, cause=str(error.__cause__ or "") or None)
    if b"format" in request.scope["query_string"] and request.query_params.get("format") == hf.DIALECT.name:
        headers = {**(headers or {}), **hf.problem_headers(error)}
    return problems.response(error, context.request_id, headers)


async def _gateway_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.GatewayError)  # noqa: S101 - Starlette's handlers take Exception; this is the type it was registered for
    return answer(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    first = error.errors()[0]
    return answer(request, errors.InvalidParameterError(f"{first['loc'][-1]} {sentence(first)}."))


async def _http(request: Request, error: Exception) -> Response:
    """Answer what FastAPI, Starlette or a dependency raised, under its own status.

    Clients treat an unknown status as 400 or 500 (RFC 9110, 15), so a status without a code gets the code of these.
    """
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    general = errors.InternalError if error.status_code >= 500 else errors.MalformedRequestError
    problem = errors.BY_STATUS.get(error.status_code, general)(SENTENCES.get(error.status_code, str(error.detail)))
    problem.status = error.status_code
    return answer(request, problem, dict(error.headers or {}))
