"""A network's raw outputs -> probabilities -> the best classes. Used by every postprocess step.

    logits [n, C] --probabilities--> [n, C] in 0..1 --best--> class ids and scores, best first

An item whose probabilities would be NaN or outside 0..1 is refused as `backend_error`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.serving import RefusalError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]

ACTIVATIONS: Final = ("softmax", "sigmoid", "none")

# Half-precision networks return probabilities such as 1.0005. A larger excess means a wrong activation, not rounding.
ROUNDING: Final = 1e-3


class Ranking(NamedTuple):
    """Classes, best first: `class_ids` INT32 [k] and their probabilities `scores` FP32 [k]."""

    class_ids: Ids
    scores: Floats


def softmax(logits: Array) -> Floats:
    """Return the softmax over the last axis, FP32; any finite input gives finite output."""
    values = logits.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # a value so far below the maximum has the share 0 anyway
        shifted = values - values.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def sigmoid(logits: Array) -> Floats:
    """Return the logistic function of every element, FP32; any finite input gives finite output, without overflow."""
    powers = np.exp(-np.abs(logits.astype(np.float32, copy=False)))
    return np.asarray(np.where(logits >= 0, 1, powers) / (1 + powers), np.float32)


def activate(logits: Array, activation: str) -> Floats:
    """Return `logits` as probabilities over the last axis, FP32, by one of `ACTIVATIONS`.

    Raises:
        RefusalError: `backend_error`, when a value is not finite or, with `none`, is not a probability.

    """
    require_finite(logits)
    if activation == "softmax":
        return softmax(logits)
    if activation == "sigmoid":
        return sigmoid(logits)
    values = logits.astype(np.float32, copy=False)
    if values.size and (values.min() < -ROUNDING or values.max() > 1 + ROUNDING):
        raise RefusalError("backend_error", "the network's scores are not probabilities")
    return values.clip(0, 1)


def require_finite(values: Array) -> None:
    """Raise RefusalError, `backend_error`, when a value is NaN or infinite."""
    if not np.isfinite(values).all():
        raise RefusalError("backend_error", "the network's output is not finite")


def probabilities(rows: Sequence[Array], activation: str) -> list[Floats | RefusalError]:
    """Return the probabilities of each row [C], all computed as one array [n, C]; a bad row is refused alone."""
    stacked = np.stack(rows)
    try:
        return list(activate(stacked, activation))
    except RefusalError as refusal:
        if len(rows) == 1:
            return [refusal]
    return [one for row in rows for one in probabilities([row], activation)]


def best(scores: Floats, k: int) -> Ranking:
    """Return the `k` best of `scores` [C], best first; equal ones in the order of their ids.

    Partitioning first makes this linear in C. All scores that equal the k-th best take part in the sort, so that a tie
    at the edge goes to the lower id too.
    """
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= edge)
    chosen = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return Ranking(chosen.astype(np.int32), scores[chosen])


def whole_number(options: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    """Return the whole-numbered option `name` of a request.

    Raises:
        RefusalError: `invalid_parameter`, when it is not a whole number from `low` to `high`.

    """
    value = options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RefusalError("invalid_parameter", f"{name} must be a whole number from {low} to {high}.")
    return value
