"""Calls with many items: items are split into batches as they are read, and the outcomes are joined in order.

    items -> Job, Job, ... (each with steps, as in `exchange`) -> one outcome per item

A retry sends only the items that failed but may succeed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from threading import Lock
from typing import Any, Generic

from pydantic import ValidationError

from triton_gateway_client import errors
from triton_gateway_client.errors import GatewayError, InvalidInputError, Problem
from triton_gateway_client.exchange import (
    Deadline,
    Parallel,
    Patience,
    Reply,
    Request,
    Steps,
    Wait,
    Work,
    is_retried,
    once,
)
from triton_gateway_client.results import BatchAnswer
from triton_gateway_client.tasks import Defaults, R, Task, new_request_id, parsed, query

ENVELOPE_BYTES = 256
"""Bytes that a form adds to each item; JSON adds fewer."""
TOO_LARGE = 413


@dataclass(frozen=True)
class Batches:
    """Items per request, and concurrent requests.

    Attributes:
        max_items: maximum items per batch; a gateway's default limit is 64.
        max_bytes: maximum bytes per batch; a larger item travels alone.
        at_once: maximum concurrent batches.

    """

    max_items: int = 64
    max_bytes: int = 32_000_000
    at_once: int = 2

    def __post_init__(self) -> None:
        if min(self.max_items, self.max_bytes, self.at_once) < 1:
            raise ValueError("max_items, max_bytes and at_once must be 1 or more")


@dataclass(frozen=True)
class Job(Generic[R]):
    """One batch: its number, and the steps that give an outcome for each of its items."""

    number: int
    steps: Steps[list[R | GatewayError]]


@dataclass
class _Limits:
    """Maximum size of a batch; lowered when the gateway refuses a batch as too large."""

    max_items: int
    max_bytes: int

    def learn(self, refused: Sequence[bytes], code: str) -> None:
        """Lower the exceeded limit to half of the refused batch."""
        if code == "batch_too_large":
            self.max_items = min(self.max_items, max(1, len(refused) // 2))
        else:
            self.max_bytes = min(self.max_bytes, max(1, sum(map(_size, refused)) // 2))


def many(
    defaults: Defaults, task: Task[R], batches: Batches, items: Iterable[object], options: Mapping[str, Any]
) -> Steps[list[R | GatewayError]]:
    """Ask for the results of many items: return each one's result or error, in order.

    Raises:
        TypeError: when the task does not take items of that type.

    """
    jobs = _jobs(defaults, task, batches, items, options)
    done: dict[int, list[R | GatewayError]] = {}
    turn = Lock()

    def take() -> Job[R] | None:
        with turn:
            return next(jobs, None)

    def stop() -> None:
        with turn:
            jobs.close()

    def branch() -> Steps[None]:
        while (job := (yield Work(take))) is not None:
            done[job.number] = yield from job.steps

    yield Parallel([branch() for _ in range(batches.at_once)], stop)
    return [outcome for number in sorted(done) for outcome in done[number]]


def _jobs(
    defaults: Defaults, task: Task[R], batches: Batches, items: Iterable[object], options: Mapping[str, Any]
) -> Generator[Job[R], None, None]:
    """Yield each batch as soon as its items are read.

    A `timeout` among the options applies to all batches together; without it, the client's applies to each batch.
    """
    limits = _Limits(batches.max_items, batches.max_bytes)
    together = defaults.deadline(options["timeout"]) if options.get("timeout") is not None else None
    for number, chunk in enumerate(_chunks(items, task, limits)):
        yield Job(number, _batch(defaults, task, chunk, limits, options, together))


def _chunks(items: Iterable[object], task: Task[R], limits: _Limits) -> Iterator[list[bytes | GatewayError]]:
    chunk: list[bytes | GatewayError] = []
    size = 0
    for item in items:
        one = _encoded(task, item)
        if chunk and (len(chunk) >= limits.max_items or size + _size(one) > limits.max_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(one)
        size += _size(one)
    if chunk:
        yield chunk


def _encoded(task: Task[R], item: object) -> bytes | GatewayError:
    try:
        return task.encode(item)
    except OSError as error:
        unreadable = InvalidInputError(f"It cannot be read: {error}", code="image_unreadable")
        unreadable.__cause__ = error
        return unreadable


def _size(item: bytes | GatewayError) -> int:
    return len(item) + ENVELOPE_BYTES if isinstance(item, bytes) else 0


def _batch(
    defaults: Defaults,
    task: Task[R],
    items: list[bytes | GatewayError],
    limits: _Limits,
    options: Mapping[str, Any],
    together: Deadline | None,
) -> Steps[list[R | GatewayError]]:
    """Send a batch; halve it when it is too large; send again the items that failed but may succeed."""
    deadline = together or defaults.deadline(None)
    request_id = new_request_id()
    outcomes: dict[int, R | GatewayError] = {n: item for n, item in enumerate(items) if isinstance(item, GatewayError)}
    sendable = {n: item for n, item in enumerate(items) if isinstance(item, bytes)}
    work = [(list(sendable), Patience(defaults.retries, deadline))] if sendable else []
    while work:
        indices, patience = work.pop()
        several = [sendable[n] for n in indices]
        request = Request("POST", f"/v1/{task.route}/batch", request_id, query(options), task.many(several))
        reply = yield from once(request, deadline)
        if isinstance(reply, GatewayError) and reply.status == TOO_LARGE and len(indices) > 1:
            limits.learn(several, reply.code)
            half = len(indices) // 2
            work += [(indices[half:], copy(patience)), (indices[:half], patience)]
            continue
        rows = [reply] * len(indices) if isinstance(reply, GatewayError) else _rows(task, reply, request, len(indices))
        outcomes.update(zip(indices, rows, strict=True))
        failed = {n: row for n, row in zip(indices, rows, strict=True) if isinstance(row, GatewayError)}
        again = [n for n, error in failed.items() if is_retried(error)]
        pause = patience.pause(failed[again[0]]) if again else None
        if pause is not None:
            yield Wait(pause)
            work.append((again, patience))
    return [outcomes[n] for n in range(len(items))]


def _rows(task: Task[R], reply: Reply, request: Request, count: int) -> list[R | GatewayError]:
    """Return the outcome of each item in a batch's answer; the same error for all when it cannot be read."""
    try:
        answer = parsed(BatchAnswer, reply, request.request_id)
        rows = {row["index"]: _row(task, row, reply) for row in answer.results}
        return [rows[index] for index in range(count)]
    except GatewayError as error:
        return [error] * count
    except (KeyError, ValidationError) as error:
        strange = errors.unexpected(reply.status, request.request_id)
        strange.__cause__ = error
        return [strange] * count


def _row(task: Task[R], row: Mapping[str, Any], reply: Reply) -> R | GatewayError:
    if "error" in row:
        return errors.from_problem(Problem.model_validate(row["error"]))
    return task.result.model_validate(row).with_timing(reply.headers.get("server-timing", ""))
