"""How many items of one model may be under way at once. Past it single requests are refused; a batch's items wait.

    single request --enter--> a place, or refused at once: its caller comes back
    item of a batch --wait--> a turn in the batches' share --> a place, first come first served, until the deadline

Batches together hold half of the places at most, so that single requests always find some; and single requests are
refused while an item of that half waits for its place, so that they cannot take every one that becomes free.

The bound is kept here and not in Triton's queue policy: with one, Triton 24.10 forgets to wake its batcher now and
then, and requests wait for half a second on an idle machine (docs/decisions/0005-queues.md).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import ExitStack

from app.errors import DeadlineExceededError, OverloadedError


class Admission:
    """Hands out places, per model. A place is a context; leaving it gives the place back."""

    def __init__(self, most: int) -> None:
        self._places = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(most))
        self._shares = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(max(1, most // 2)))

    async def enter(self, model: str) -> ExitStack:
        """Return a place for a single request.

        Raises:
            OverloadedError: when the model has none left.

        """
        places = self._places[model]
        if places.locked():
            raise OverloadedError("The model has as many items under way as it may.", model=model)
        return await _held(places)

    async def wait(self, model: str, timeout_s: float) -> ExitStack:
        """Return a place for an item of a batch, as soon as there is one.

        Raises:
            DeadlineExceededError: when there is none within `timeout_s`.

        """
        try:
            async with asyncio.timeout(timeout_s):
                return await _held(self._shares[model], self._places[model])
        except TimeoutError as error:
            raise DeadlineExceededError("The request's deadline passed before the item's turn.", model=model) from error


async def _held(*semaphores: asyncio.Semaphore) -> ExitStack:
    with ExitStack() as held:
        for semaphore in semaphores:
            await semaphore.acquire()
            held.callback(semaphore.release)
        return held.pop_all()
