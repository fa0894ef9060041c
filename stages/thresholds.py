"""Lowest scores by class: from a step's config or a request -> class ids -> which candidates stay.

Both say it as a JSON object of label (or class id) and score, such as {"person": 0.6, "dog": 0.3}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.config import ConfigError, StepConfig
from stages.scores import Array, Floats
from stages.serving import RefusalError

NAME = "class_thresholds"
ByClass = Mapping[int, float]
Find = Callable[[object, Sequence[str], str], list[int]]


def configured(config: StepConfig, labels: Sequence[str], find: Find) -> ByClass:
    """Return the model's own thresholds; raises ConfigError when a label is unknown or a score out of bounds."""
    text = config.text(NAME, "{}")
    try:
        return _parse(text, labels, find)
    except RefusalError as refusal:
        raise ConfigError(f"The parameter '{NAME}' does not fit: {refusal.sentence}") from None


def asked(given: Mapping[str, Any], labels: Sequence[str], default: ByClass, find: Find) -> ByClass:
    """Return a request's thresholds, which replace all of the model's; `default` when it has none.

    Raises:
        RefusalError: `invalid_parameter`, when it is no such object, names an unknown class, or a score out of bounds.

    """
    return _parse(given[NAME], labels, find) if NAME in given else default


def keep(scores: Floats, class_ids: Array, others: float, by_class: ByClass, classes: int) -> npt.NDArray[np.intp]:
    """Return the indices of candidates that reach their class's threshold; `others` is that of all other classes."""
    lowest = np.full(classes, others, np.float32)
    lowest[list(by_class)] = list(by_class.values())
    return np.flatnonzero(scores >= lowest[class_ids])


def _parse(text: object, labels: Sequence[str], find: Find) -> ByClass:
    try:
        named = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        named = None
    if not isinstance(named, dict):
        raise RefusalError("invalid_parameter", f'{NAME} must be a JSON object such as {{"person": 0.6}}.')
    found: dict[int, float] = {}
    for name, score in named.items():
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise RefusalError("invalid_parameter", f"{NAME} of '{name[:100]}' must be between 0 and 1.")
        found |= dict.fromkeys(find(name, labels, NAME), float(score))
    return found
