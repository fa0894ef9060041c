"""Requests -> one batch -> responses, item by item.

Every Python step is served by `serve`. Triton hands a step a list of requests, each holding n >= 1 items. `read` turns
one request into its items, `compute` turns the items of all requests into results in one go, and `answer` turns the
results of one request into a response. A refused item fails only its own request:

    requests --read--> items --compute--> results | refusals --answer / refuse--> responses

Triton's Python API is not imported here; a backend passes its functions in.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

R = TypeVar("R")
I = TypeVar("I")  # noqa: E741 - items, beside requests R, results T and answers A
T = TypeVar("T")
A = TypeVar("A")

logger = logging.getLogger(__name__)


class RefusalError(Exception):
    """A step refuses one item.

    Attributes:
        code: a problem code of the HTTP contract, such as `image_undecodable`.
        sentence: the reason, for the sender of the item.

    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence

    def message(self, step: str) -> str:
        """Return the text that crosses Triton: `<code>@<step>: <sentence>`."""
        # Triton cuts the text at a NUL, and the gateway reads one line.
        sentence = "".join(character if character.isprintable() else "\ufffd" for character in self.sentence)
        return f"{self.code}@{step}: {sentence}"


def refuser(triton: Any, step: str) -> Callable[[RefusalError], Any]:
    """Return the function that turns a refusal into a response.

    Args:
        triton: Triton's Python API, which only a step's process can import.
        step: the step's name in messages.

    """

    def refuse(refusal: RefusalError) -> Any:
        error = triton.TritonError(refusal.message(step), triton.TritonError.INVALID_ARG)
        return triton.InferenceResponse(error=error)

    return refuse


def serve(
    requests: Sequence[R],
    *,
    read: Callable[[R], Sequence[I]],
    compute: Callable[[list[I]], Sequence[T | RefusalError]],
    answer: Callable[[R, list[T]], A],
    refuse: Callable[[RefusalError], A],
) -> list[A]:
    """Answer `requests` in order, computing the items of all of them as one batch.

    `read` may raise `RefusalError` for a whole request. `compute` returns one result or refusal per item, in order. If
    it raises, each item is computed alone, so that only the item at fault fails.
    """
    batches: list[Sequence[I] | RefusalError] = [_guard(read, request) for request in requests]
    items = [item for batch in batches if not isinstance(batch, RefusalError) for item in batch]
    results = iter(_compute(items, compute))
    answers: list[A] = []
    for request, batch in zip(requests, batches, strict=True):
        if isinstance(batch, RefusalError):
            answers.append(refuse(batch))
            continue
        own = [next(results) for _ in batch]
        refused = next((result for result in own if isinstance(result, RefusalError)), None)
        if refused is not None:
            answers.append(refuse(refused))
            continue
        made = _guard(lambda request: answer(request, own), request)  # type: ignore[arg-type]  # noqa: B023
        answers.append(refuse(made) if isinstance(made, RefusalError) else made)
    return answers


def _guard(function: Callable[[I], T], argument: I) -> T | RefusalError:
    """Call `function`; an exception becomes a refusal of this one argument."""
    try:
        return function(argument)
    except RefusalError as refusal:
        return refusal
    except Exception:
        logger.exception("a step failed on one item")
        return RefusalError("backend_error", "the step failed on this item")


def _compute(items: list[I], compute: Callable[[list[I]], Sequence[T | RefusalError]]) -> list[T | RefusalError]:
    if not items:
        return []
    whole = _guard(compute, items)
    if not isinstance(whole, RefusalError):
        return list(whole)
    if len(items) == 1:
        return [whole]
    return [one if isinstance(one, RefusalError) else one[0] for one in (_guard(compute, [item]) for item in items)]


def parameters(text: str) -> dict[str, Any]:
    """Return a request's parameters from the JSON text that Triton passes to a step, which is empty without any."""
    found: dict[str, Any] = json.loads(text) if text else {}
    return found


def number(options: dict[str, Any], name: str, default: float, low: float, high: float) -> float:
    """Return the numeric option `name`, within [low, high].

    Raises:
        RefusalError: `invalid_parameter`, when it is not a finite number or is out of bounds.

    """
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise RefusalError("invalid_parameter", f"{name} must be between {low:g} and {high:g}.")
    return value


def flag(options: dict[str, Any], name: str, default: bool) -> bool:
    """Return the option `name`, which is true or false.

    Raises:
        RefusalError: `invalid_parameter`, when it is neither.

    """
    value = options.get(name, default)
    if not isinstance(value, bool):
        raise RefusalError("invalid_parameter", f"{name} must be true or false.")
    return value


def pad(rows: Sequence[npt.NDArray[Any]], fill: Any) -> npt.NDArray[Any]:
    """Stack arrays of shape [k_i, ...] into one [n, max k_i, ...], padding the shorter ones with `fill`."""
    longest = max(len(row) for row in rows)
    stacked = np.full((len(rows), longest, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    for target, row in zip(stacked, rows, strict=True):
        target[: len(row)] = row
    return stacked
