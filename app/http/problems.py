"""GatewayError -> `application/problem+json` (RFC 9457), and the same problems as OpenAPI responses.

The only place where a failure becomes bytes.
"""

from __future__ import annotations

from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from app.errors import GatewayError

MEDIA_TYPE = "application/problem+json"
EXAMPLE_REQUEST_ID = "0190f3a2-7c1e-7b6a-9d54-3f1f0c9a8b21"


class Problem(BaseModel):
    """Why a request, or one item of a batch, got no result (RFC 9457)."""

    type: str = Field(description="A stable name of the kind of problem, as a URN.")
    title: str
    status: int
    detail: str = Field(description="What happened, in one sentence.")
    code: str = Field(description="A stable code for programs to branch on.")
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    model: str | None = None
    step: str | None = Field(default=None, description="The step of the model that refused or failed.")


def problem(error: GatewayError, request_id: str) -> Problem:
    """Return the problem that describes `error`."""
    return Problem(
        type=f"urn:triton-gateway:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        retryable=error.retryable,
        model=error.model,
        step=error.step,
    )


def response(error: GatewayError, request_id: str, headers: dict[str, str] | None = None) -> Response:
    """Return the answer to a request that failed with `error`."""
    headers = dict(headers or {})
    if error.retry_after_s is not None:
        headers.setdefault("Retry-After", str(error.retry_after_s))
    body = problem(error, request_id).model_dump_json(exclude_none=True)
    return Response(body, status_code=error.status, media_type=MEDIA_TYPE, headers=headers)


def responses(*errors: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that may fail in these ways, with one example per code."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for error in sorted(errors, key=lambda error: (error.status, error.code)):
        entry = by_status.setdefault(
            error.status,
            {
                "description": error.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        example = problem(error((error.__doc__ or "").strip()), EXAMPLE_REQUEST_ID).model_dump(exclude_none=True)
        entry["content"][MEDIA_TYPE]["examples"][error.code] = {"summary": error.title, "value": example}
        if error.retry_after_s is not None:
            header = {"description": "Seconds to wait before the next try.", "schema": {"type": "integer"}}
            entry["headers"] = {"Retry-After": header}
    return by_status
