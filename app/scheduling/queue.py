"""The slots of one model and its queues: single requests and items of batches take turns.

A refused request is told when to come back. Slots are promised one after the other at the measured rate, as if every
refused request will return. A request that returns in time is recognised by its request id and may join a longer queue
than others, so the promise holds while the overload lasts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from app.scheduling.limit import ConcurrencyLimit
from app.telemetry.metrics import Metrics

SINGLE, BATCH = 0, 1
"""The two queues: of single requests, and of items of batches."""
GRACE_S = 10.0
"""How long a promise is remembered after its time."""
MAX_RETRY_S = 3600
MAX_PROMISES = 50_000
SAFETY = 1.1
"""Factor on the expected wait, because service times vary."""


class ModelQueue:
    """The slots of one model, and the queues for them."""

    def __init__(self, model: str, floor: int, ceiling: int, now: float, metrics: Metrics) -> None:
        self.limit = ConcurrencyLimit(floor, ceiling, now)
        self.with_triton = 0
        self.batched = 0
        """Items of admitted batches that have no answer yet."""
        self._queues: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._turn = 0
        self._promises: dict[str, float] = {}
        self._gauges = [gauge.labels(model) for gauge in (metrics.with_triton, metrics.waiting, metrics.limit)]

    @property
    def has_free_slot(self) -> bool:
        """Whether a slot can be had without a wait."""
        return self.with_triton < self.limit.value and not self.waiting(SINGLE) and not self.waiting(BATCH)

    def waiting(self, queue: int) -> int:
        """Return the number of single requests, or of items of batches, that wait."""
        return len(self._queues[queue])

    def expected_s(self) -> float:
        """Return the expected seconds, wait and service, of a single request that comes now; 0 when unknown."""
        if self.has_free_slot or not self.limit.rate:
            return 0.0
        turns = self.waiting(SINGLE) + 1
        return SAFETY * (turns + min(self.waiting(BATCH), turns)) / self.limit.rate + self.limit.service_s

    @property
    def has_promised(self) -> bool:
        """Whether requests were told to come back and have not come yet."""
        return bool(self._promises)

    def is_promised(self, request_id: str, now: float) -> bool:
        """Return whether this request was told to come back, and has waited as it was told."""
        due = self._promises.get(request_id)
        return due is not None and now >= due - 1

    def keep_promise(self, request_id: str) -> None:
        """Forget the promise to a request, which gets its slot now."""
        self._promises.pop(request_id, None)

    def promise(self, request_id: str, now: float) -> int:
        """Promise a slot to a request that is refused now; return the seconds until then."""
        self._promises.pop(request_id, None)
        while self._promises and next(iter(self._promises.values())) + GRACE_S < now:
            del self._promises[next(iter(self._promises))]
        ahead = len(self._promises) + self.waiting(SINGLE) + self.waiting(BATCH)
        seconds = min(max(1, math.ceil(ahead / self.limit.rate) if self.limit.rate else 1), MAX_RETRY_S)
        if len(self._promises) < MAX_PROMISES:
            self._promises[request_id] = now + seconds
        return seconds

    def take(self) -> bool:
        """Take a free slot; return whether there was one."""
        if not self.has_free_slot:
            return False
        if not self.with_triton:
            self.limit.begin(time.monotonic())
        self.with_triton += 1
        self._show()
        return True

    async def wait(self, queue: int) -> None:
        """Take a slot after a turn in a queue."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[queue].append(turn)
        self._show()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()  # the slot came just as the wait ended
            elif turn in self._queues[queue]:
                self._queues[queue].remove(turn)
                self._show()
            raise

    def give_back(self) -> None:
        """Give a slot back. The next in the queues gets it; single requests and items of batches take turns."""
        self.with_triton -= 1
        while any(self._queues) and self.with_triton < self.limit.value:
            self._turn = 1 - self._turn
            queue = self._queues[self._turn] or self._queues[1 - self._turn]
            turn = queue.popleft()
            if not turn.done():  # a finished turn is that of a caller who has just left
                turn.set_result(None)
                self.with_triton += 1
        self._show()

    def _show(self) -> None:
        """Set the metrics."""
        waiting = self.waiting(SINGLE) + self.waiting(BATCH)
        for gauge, value in zip(self._gauges, (self.with_triton, waiting, self.limit.value), strict=True):
            gauge.set(value)
