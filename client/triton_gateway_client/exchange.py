"""One call, without any input or output: what to send, when to try again, when to give up.

A call is a generator. It yields one step at a time and is sent the step's outcome; the synchronous and the asynchronous
client differ only in how they do a step.

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
"""Mean pause before the first retry, doubled for each further one, and its maximum, when the gateway names none."""
RETRYABLE_STATUSES = (None, 429, 503)
"""Statuses that the next try may not meet; None: no answer came."""


class Deadline:
    """The moment after which nobody waits for an answer."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        if not seconds > 0:
            raise ValueError(f"a timeout must be more than 0 s, not {seconds}")
        self._clock = clock
        self._at = clock() + seconds

    def left(self) -> float:
        """Return the seconds until then; negative when it has passed."""
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
    """Run several branches at once, until all have ended. When one fails, raise its error.

    Attributes:
        branches: the steps of each branch.
        stop: keeps the other branches from starting more work after a failure.

    """

    branches: Sequence[Steps[None]]
    stop: Callable[[], None]


Steps: TypeAlias = Generator[Send | Wait | Work | Parallel, Any, T]


class Patience:
    """How often a call is tried again, and after which pauses.

    Our own, because httpx retries connecting only, and a retry library cannot count on for each half of a batch.

    Args:
        retries: the maximum number of tries after the first.
        deadline: no pause ends after it.
        chance: returns a random number from 0 to 1.

    """

    def __init__(self, retries: int, deadline: Deadline, chance: Callable[[], float] = random.random) -> None:
        self._retries = retries
        self._deadline = deadline
        self._chance = chance
        self._tries = 0

    def pause(self, error: GatewayError) -> float | None:
        """Return how many seconds to wait before the next try; None when there is none."""
        if not error.retryable or self._tries >= self._retries:
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
    """Try a request until it succeeds, always with the same request id.

    The gateway recognises by the id the requests that it told to come back.

    Raises:
        GatewayError: when the request did not succeed in time, or cannot.

    """
    patience = Patience(retries, deadline)
    while True:
        outcome = yield from once(request, deadline)
        if isinstance(outcome, Reply):
            return outcome
        pause = patience.pause(outcome) if outcome.status in RETRYABLE_STATUSES else None
        if pause is None:
            raise outcome
        yield Wait(pause)


def late(request: Request) -> GatewayError:
    """Return the error of a request whose time ran out on this side."""
    return errors.DeadlineExceededError(
        "The answer did not arrive in time.", code="deadline_exceeded", request_id=request.request_id, retryable=True
    )
