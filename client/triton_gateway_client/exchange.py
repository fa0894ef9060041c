"""The logic of one call without I/O: which requests to send, when to retry and when to give up.

A call is a generator. It yields one step at a time and receives the step's outcome; the synchronous and the
asynchronous client differ only in how they run a step.

    Send -> Reply, or GatewayError when none came        Work -> what its function returned
    Wait, Parallel -> nothing
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from triton_gateway_client import errors
from triton_gateway_client.errors import GatewayError

T = TypeVar("T")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Mean pause before the first retry, and its maximum. It doubles with each retry; a `Retry-After` replaces it."""
RETRIED_STATUSES = (None, 429, 503)
"""Statuses after which the client retries by itself; None: no answer came."""


class Deadline:
    """The time until which the caller waits for an answer."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not seconds > 0:
            raise ValueError(f"a timeout must be more than 0 s, not {seconds}")
        self._clock = clock
        self._at = clock() + seconds

    def left(self) -> float:
        """Return the seconds left; negative when the deadline has passed."""
        return self._at - self._clock()


@dataclass(frozen=True)
class Payload:
    """The body of a request: bytes of one media type, or the files of a form, as (part, (file name, bytes))."""

    content: bytes | None = None
    media_type: str | None = None
    files: Sequence[tuple[str, tuple[str, bytes]]] = ()


@dataclass(frozen=True)
class Request:
    """An HTTP request, without its deadline."""

    method: str
    path: str
    request_id: str
    query: Mapping[str, Any] = field(default_factory=dict)
    payload: Payload = Payload()


@dataclass(frozen=True)
class Send:
    """Send a request, and wait for its answer until the deadline."""

    request: Request
    deadline: Deadline


@dataclass(frozen=True)
class Reply:
    """An answer of any status; names of headers are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Wait:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Call a function that reads files or computes."""

    call: Callable[[], object]


@dataclass(frozen=True)
class Parallel:
    """Run branches concurrently until all have ended. When one fails, raise its error.

    Attributes:
        branches: the steps of each branch.
        stop: keeps the other branches from starting more work after a failure.

    """

    branches: Sequence[Steps[None]]
    stop: Callable[[], None]


Steps: TypeAlias = Generator[Send | Wait | Work | Parallel, Any, T]


def is_retried(error: GatewayError) -> bool:
    """Tell whether the client sends a failed request, or a failed item of a batch, again by itself.

    Other errors may be `retryable` too, such as a 504: the caller decides on those.
    """
    return error.retryable and error.status in RETRIED_STATUSES


class Patience:
    """The retries that a call has left, and the pauses before them.

    httpx retries failed connections only. A retry library counts the tries of one call, but each half of a split batch
    must continue the count of the whole batch.

    Args:
        retries: maximum number of tries after the first.
        deadline: a pause that would end later is refused.
        chance: returns a random number from 0 to 1.

    """

    def __init__(self, retries: int, deadline: Deadline, chance: Callable[[], float] = random.random) -> None:
        self._retries = retries
        self._deadline = deadline
        self._chance = chance
        self._tries = 0

    def pause(self, error: GatewayError) -> float | None:
        """Return the seconds to wait before the next try; None when the call must not be tried again."""
        if not is_retried(error) or self._tries >= self._retries:
            return None
        backoff = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._tries)
        pause = backoff * (0.5 + self._chance()) if error.retry_after is None else error.retry_after
        if pause >= self._deadline.left():
            return None
        self._tries += 1
        return pause


def once(request: Request, deadline: Deadline) -> Steps[Reply | GatewayError]:
    """Try a request once; return its error when it does not succeed."""
    if deadline.left() <= 0:
        return late(request)
    outcome: Reply | GatewayError = yield Send(request, deadline)
    if isinstance(outcome, Reply) and not 200 <= outcome.status < 300:
        return errors.from_answer(outcome.status, outcome.headers, outcome.body, request.request_id)
    return outcome


def call(request: Request, deadline: Deadline, retries: int) -> Steps[Reply]:
    """Try a request until it succeeds.

    All tries have the same request id: by it the gateway recognises a request that it told to retry later.

    Raises:
        GatewayError: when the request did not succeed in time, or cannot.

    """
    patience = Patience(retries, deadline)
    while True:
        outcome = yield from once(request, deadline)
        if isinstance(outcome, Reply):
            return outcome
        pause = patience.pause(outcome)
        if pause is None:
            raise outcome
        yield Wait(pause)


def late(request: Request) -> GatewayError:
    """Return the error of a request that exceeded the client's deadline."""
    return errors.DeadlineExceededError(
        "The answer did not arrive in time.", code="deadline_exceeded", request_id=request.request_id, retryable=True
    )
