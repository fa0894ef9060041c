"""One call, without any input or output: what to send, when to try again, when to give up.

A call is a generator. It yields what it wants done, one step at a time, and is sent what came of it; the synchronous
and the asynchronous client differ only in how they do a step.

    Work -> what its function returned        Send -> Reply, or GatewayError when none came        Wait -> nothing
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
"""The mean pause before the second try when the gateway names none, doubled with each; and the longest."""
WORTH_A_RETRY = (None, 429, 503)
"""What the next try may find otherwise: no answer at all, too much to do, not there."""


class Deadline:
    """The moment after which nobody waits for an answer any more."""

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
    """What is asked, without when."""

    method: str
    path: str
    request_id: str
    query: Mapping[str, Any] = field(default_factory=dict)
    payload: Payload = Payload()


@dataclass(frozen=True)
class Send:
    """Send a request; nobody waits for its answer after the deadline."""

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
    """Call what reads files or computes."""

    call: Callable[[], object]


Steps: TypeAlias = Generator[Send | Wait | Work, Any, T]


class Patience:
    """How often a call is tried again, and after which pauses.

    Args:
        retries: so many times after the first try.
        deadline: no pause ends after it.
        chance: returns a number from 0 to 1.

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
    """Try a request once; what is not a success is returned as its error."""
    if deadline.left() <= 0:
        return late(request)
    outcome: Reply | GatewayError = yield Send(request, deadline)
    if isinstance(outcome, Reply) and not 200 <= outcome.status < 300:
        return errors.from_answer(outcome.status, outcome.headers, outcome.body, request.request_id)
    return outcome


def call(request: Request, deadline: Deadline, retries: int) -> Steps[Reply]:
    """Try a request until it succeeds, under one request id, by which the gateway knows whom it told to come back.

    Raises:
        GatewayError: when it did not succeed in time, or cannot.

    """
    patience = Patience(retries, deadline)
    while True:
        outcome = yield from once(request, deadline)
        if isinstance(outcome, Reply):
            return outcome
        pause = patience.pause(outcome) if outcome.status in WORTH_A_RETRY else None
        if pause is None:
            raise outcome
        yield Wait(pause)


def late(request: Request) -> GatewayError:
    """Return the error of a request whose time ran out on this side."""
    return errors.DeadlineExceededError(
        "The answer did not arrive in time.", code="deadline_exceeded", request_id=request.request_id, retryable=True
    )
