"""How many items of one model may be under way at once: past it, requests are refused instead of queued.

The bound is kept here and not in Triton's queue policy: with one, Triton 24.10 forgets to wake its batcher now and
then, and requests wait for half a second on an idle machine (docs/decisions/0005-queues.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import OverloadedError


class Admission:
    """Counts what is under way, per model."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: Counter[str] = Counter()

    @contextmanager
    def enter(self, model: str) -> Iterator[None]:
        """Hold one place while an item is under way.

        Raises:
            OverloadedError: when the model has none left.

        """
        if self._running[model] >= self._most:
            raise OverloadedError("The model has as many items under way as it may.", model=model)
        self._running[model] += 1
        try:
            yield
        finally:
            self._running[model] -= 1
