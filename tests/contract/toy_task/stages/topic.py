"""Logits -> the name of the largest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def topics(logits: npt.NDArray[np.float32], names: Sequence[str]) -> npt.NDArray[Any]:
    """Return the names [n, 1] for logits [n, C]."""
    return np.array([[names[index].encode()] for index in logits.argmax(axis=1)], np.object_)
