"""The errors that a call may raise.

GatewayError
├── InvalidInputError      400, 413, 415, 422: the input or an option is invalid
├── AccessDeniedError      401, 403
├── NotFoundError          404: no such model, version or route
├── OverloadedError        429
├── UnavailableError       503: Triton or the model is unavailable, or the gateway is stopping
├── DeadlineExceededError  504, or the client's timeout
└── ConnectionFailedError  no answer
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from pydantic import BaseModel, ConfigDict, ValidationError

UNEXPECTED = "unexpected_answer"
TEMPORARY_STATUSES = (429, 502, 503, 504)
"""Statuses that make an error `retryable` when the answer holds no problem, because a proxy sent it."""


class Problem(BaseModel):
    """The gateway's description of a failure (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    retryable: bool
    model: str | None = None
    step: str | None = None


class GatewayError(Exception):
    """A call, or one item of many, failed.

    Attributes:
        detail: what happened, in one sentence.
        code: stable, for programs to branch on: one of the gateway's codes, or the client's own `connection_failed`,
            `image_unreadable` and `unexpected_answer`.
        status: the HTTP status; None when no answer came.
        request_id: identifies the call in the gateway's logs.
        retryable: whether the same call may succeed later. The client itself retries some of these errors only: see
            `exchange.is_retried`.
        retry_after: seconds to wait before a retry; None when the gateway does not state it.
        model: the requested model; None when unknown.
        step: the model's step that refused or failed; None when unknown.

    """

    def __init__(
        self,
        detail: str,
        *,
        code: str = UNEXPECTED,
        status: int | None = None,
        request_id: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        model: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status
        self.request_id = request_id
        self.retryable = retryable
        self.retry_after = retry_after
        self.model = model
        self.step = step

    def __str__(self) -> str:
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.detail}{request}"


class InvalidInputError(GatewayError):
    """The input or an option is invalid."""


class AccessDeniedError(GatewayError):
    """The API key is missing or wrong, or does not permit this call."""


class NotFoundError(GatewayError):
    """The model, version or route does not exist."""


class OverloadedError(GatewayError):
    """The gateway is overloaded; `retry_after` says when to retry."""


class UnavailableError(GatewayError):
    """Triton or the model is unavailable, or the gateway is stopping."""


class DeadlineExceededError(GatewayError):
    """The answer did not arrive in time."""


class ConnectionFailedError(GatewayError):
    """The connection was refused, or broke before an answer came."""


BY_STATUS: dict[int, type[GatewayError]] = {
    400: InvalidInputError,
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    413: InvalidInputError,
    415: InvalidInputError,
    422: InvalidInputError,
    429: OverloadedError,
    503: UnavailableError,
    504: DeadlineExceededError,
}


def from_problem(problem: Problem, retry_after: float | None = None) -> GatewayError:
    """Return a problem as an error."""
    return BY_STATUS.get(problem.status, GatewayError)(
        problem.detail,
        code=problem.code,
        status=problem.status,
        request_id=problem.request_id,
        retryable=problem.retryable,
        retry_after=retry_after,
        model=problem.model,
        step=problem.step,
    )


def from_answer(status: int, headers: Mapping[str, str], body: bytes, request_id: str) -> GatewayError:
    """Return the error in an answer that is not a result; a proxy in front of the gateway may have sent any body."""
    retry_after = seconds_of(headers.get("retry-after"))
    try:
        return from_problem(Problem.model_validate_json(body), retry_after)
    except ValidationError:
        return BY_STATUS.get(status, GatewayError)(
            f"HTTP status {status}, and no problem that says why.",
            status=status,
            request_id=request_id,
            retryable=status in TEMPORARY_STATUSES,
            retry_after=retry_after,
        )


def unexpected(status: int, request_id: str) -> GatewayError:
    """Return the error for a successful answer whose body is not a valid result."""
    return GatewayError("The answer is not what a gateway of this version gives.", status=status, request_id=request_id)


def seconds_of(retry_after: str | None) -> float | None:
    """Return the seconds of a `Retry-After` header, which holds a number or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
