"""Turns: the items of failed batches are sent again one at a time for each model.

Triton would batch them with each other again, and the same item would fail them all again. One more call at a time is
also all the load that a model which always fails causes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

MAX_WAITING = 32
"""Calls of a model that may wait for their turn; a longer queue would keep callers waiting for an error."""


@dataclass
class _Turn:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    """Calls that have the turn or wait for it."""


class Turns:
    """One turn for each model."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turn] = {}

    def is_full(self, model: str) -> bool:
        """Return whether so many calls wait that no other should."""
        turn = self._turns.get(model)
        return turn is not None and turn.waiting >= MAX_WAITING

    @asynccontextmanager
    async def take(self, model: str) -> AsyncIterator[None]:
        """Wait for the model's turn, and keep it."""
        turn = self._turns.setdefault(model, _Turn())
        turn.waiting += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.waiting -= 1
            if not turn.waiting:
                del self._turns[model]
