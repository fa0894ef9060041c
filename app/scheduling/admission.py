"""How many items of one model are with Triton at once, who waits for a place, and who is refused instead.

    single request --enter--> a place | a turn in the queue | 429 at once, when the queue is full or too long to wait
    batch --admit--> its items --wait--> each a place, in turns with the single requests
    place --> app.scheduling.coalescing, which gives it back when the call has ended, also when its caller has left

How many are let through at once follows the measured service time, by the rule of TCP Vegas (Brakmo and Peterson, 1995;
for servers: Netflix, concurrency-limits): while calls take little longer than at best, more are let through; when they
take much longer, what is let through only waits in Triton, where nobody can be fair to it, so fewer are. With dynamic
batching "at best" is not a lone call: the floor, two full batches for each server, is never left.

Whoever is refused is told when to come back, as if all who were told so before will come: places are promised one after
the other, at the measured rate. A request that comes back then, known by its request id, finds the queue longer for it
than for others, so the promise holds while the overload lasts.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.errors import DeadlineExceededError, GatewayError, OverloadedError
from app.telemetry.metrics import Metrics
from app.triton.served import ServedModel

SINGLE, BATCH = 0, 1
LEAST = 4
"""Items let through at once, whatever is measured."""
WINDOW_S = 0.5
"""A window of measurement is at least this long."""
CALM, CROWDED = 0.25, 0.5
"""The share of the limit that seems to wait in Triton: below the first the limit grows, above the second it shrinks."""
FORGET_S = 30.0
"""The best service time is looked for anew so often: pictures may have become larger."""
GRACE_S = 10.0
"""How long after its time a promise is remembered."""
LONGEST_RETRY_S = 3600
MOST_PROMISES = 50_000
RESERVE = 1.1
"""What a wait is expected to take is taken to be so many times longer: service times vary."""
SHARE_OF_NEW = 0.5
"""While places are promised, new requests may wait for this share of their deadline: the rest is for the promised."""
BATCHES = 8
"""Items of batches under way, as a multiple of the queue of single requests."""


class Limit:
    """How many items may be with Triton at once.

    Attributes:
        value: the limit.
        rate: items a second that came back in the last window; 0 until there was one.
        service_s: what a call took in the last window, on average; 0 until there was one.

    """

    def __init__(self, floor: int, ceiling: int, now: float) -> None:
        self.ceiling, self.value = ceiling, 0
        self.raise_to(floor)
        self.rate = self.service_s = 0.0
        self._bests = [math.inf, math.inf]
        self._forget_at = now + FORGET_S
        self.begin(now)

    def raise_to(self, floor: int) -> None:
        """Set the floor, since models and servers come and go."""
        self.floor = min(floor, self.ceiling)
        self.value = max(self.value, self.floor)

    def begin(self, now: float) -> None:
        """Open a window of measurement; also when nothing was under way, which says nothing of what could be."""
        self._begun, self._count, self._served, self._total, self._busiest, self._failed = now, 0, 0, 0.0, 0, False

    def observe(self, now: float, seconds: float | None, with_triton: int, *, failed: bool = False) -> None:
        """Count one call, of `with_triton` at once, that took `seconds`; None when it was refused by a step.

        A call that missed its deadline has `failed`: it was not served.
        """
        self._busiest = max(self._busiest, with_triton)
        self._failed |= failed
        self._served += not failed
        if seconds is not None:
            self._count += 1
            self._total += seconds
        if now - self._begun >= WINDOW_S and self._count >= self.floor:
            self._close(now)

    def _close(self, now: float) -> None:
        self.service_s = self._total / self._count
        if self._busiest > self.value / 2:  # else it says nothing of what Triton could take
            self.rate = self._served / (now - self._begun)
            if now > self._forget_at:
                self._bests, self._forget_at = [math.inf, self._bests[0]], now + FORGET_S
            self._bests[0] = min(self._bests[0], self.service_s)
            waiting = 1 - min(self._bests) / self.service_s if self.service_s else 0.0
            step = max(1, round(math.log2(self.value)))
            if self._failed or waiting > CROWDED:
                self.value = max(self.floor, self.value - step)
            elif waiting < CALM:
                self.value = min(self.ceiling, self.value + step)
        self.begin(now)


class Lane:
    """The places of one model, and who waits for one."""

    def __init__(self, model: str, floor: int, ceiling: int, now: float, metrics: Metrics) -> None:
        self.limit = Limit(floor, ceiling, now)
        self.with_triton = 0
        self.batched = 0
        """Items of batches that were admitted and have no answer yet."""
        self._queues: tuple[deque[asyncio.Future[None]], deque[asyncio.Future[None]]] = (deque(), deque())
        self._turn = 0
        self._promises: dict[str, float] = {}
        self._gauges = [gauge.labels(model) for gauge in (metrics.with_triton, metrics.waiting, metrics.limit)]

    @property
    def is_free(self) -> bool:
        """Whether a place can be had without a wait."""
        return self.with_triton < self.limit.value and not self.waiting(SINGLE) and not self.waiting(BATCH)

    def waiting(self, queue: int) -> int:
        """Return how many single requests, or items of batches, wait."""
        return len(self._queues[queue])

    def expected_s(self) -> float:
        """Return how long a single request that came now would take, waiting and served, as far as is known."""
        if self.is_free or not self.limit.rate:
            return 0.0
        turns = self.waiting(SINGLE) + 1
        return RESERVE * (turns + min(self.waiting(BATCH), turns)) / self.limit.rate + self.limit.service_s

    @property
    def has_promised(self) -> bool:
        """Whether some were told to come back, and have not come yet."""
        return bool(self._promises)

    def is_promised(self, request_id: str, now: float) -> bool:
        """Tell whether this request was told to come back, and has waited as it was told."""
        due = self._promises.get(request_id)
        return due is not None and now >= due - 1

    def keep_promise(self, request_id: str) -> None:
        """Forget that a request was told to come back: it has its place."""
        self._promises.pop(request_id, None)

    def promise(self, request_id: str, now: float) -> int:
        """Return after how many seconds a request that is refused now will find a place."""
        self._promises.pop(request_id, None)
        while self._promises and next(iter(self._promises.values())) + GRACE_S < now:
            del self._promises[next(iter(self._promises))]
        ahead = len(self._promises) + self.waiting(SINGLE) + self.waiting(BATCH)
        seconds = min(max(1, math.ceil(ahead / self.limit.rate) if self.limit.rate else 1), LONGEST_RETRY_S)
        if len(self._promises) < MOST_PROMISES:
            self._promises[request_id] = now + seconds
        return seconds

    def take(self) -> bool:
        """Take a place where one is free; tell whether it was."""
        if not self.is_free:
            return False
        if not self.with_triton:
            self.limit.begin(time.monotonic())
        self.with_triton += 1
        self._tell()
        return True

    async def wait(self, queue: int) -> None:
        """Take a place after a turn in a queue."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues[queue].append(turn)
        self._tell()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came just as the wait ended
            elif turn in self._queues[queue]:
                self._queues[queue].remove(turn)
                self._tell()
            raise

    def leave(self) -> None:
        """Give a place back; who waits gets it, single requests and items of batches in turns."""
        self.with_triton -= 1
        while any(self._queues) and self.with_triton < self.limit.value:
            self._turn = 1 - self._turn
            queue = self._queues[self._turn] or self._queues[1 - self._turn]
            turn = queue.popleft()
            if not turn.done():  # else its caller has just left
                turn.set_result(None)
                self.with_triton += 1
        self._tell()

    def _tell(self) -> None:
        waiting = self.waiting(SINGLE) + self.waiting(BATCH)
        for gauge, value in zip(self._gauges, (self.with_triton, waiting, self.limit.value), strict=True):
            gauge.set(value)


class Admission:
    """Hands out places, per model. Whoever gets one hands it to `Calls.infer`, which gives it back.

    Args:
        ceiling: the most items of one model that are ever with Triton at once.
        queue: the most single requests for one model that wait.
        metrics: is told the limits.
        servers: returns how many servers there are for a model.

    """

    def __init__(self, ceiling: int, queue: int, metrics: Metrics, servers: Callable[[str], int] = lambda _: 1) -> None:
        self._ceiling = ceiling
        self._queue = queue
        self._metrics = metrics
        self._servers = servers
        self._lanes: dict[str, Lane] = {}

    def _lane(self, model: ServedModel) -> Lane:
        floor = max(LEAST, 2 * model.max_batch_size) * max(1, self._servers(model.name))
        lane = self._lanes.get(model.name)
        if lane is None:
            lane = Lane(model.name, floor, self._ceiling, self._now(), self._metrics)
            self._lanes[model.name] = lane
        lane.limit.raise_to(floor)
        return lane

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def check(self, model: ServedModel, left_s: float, request_id: str) -> None:
        """Refuse a single request that would find no place in time; asked before its body is read, and after.

        Raises:
            OverloadedError: when the queue is full, or too long for the request's deadline; it says when to come back.
            DeadlineExceededError: when even a call without a wait takes longer.

        """
        lane, now = self._lane(model), self._now()
        if lane.with_triton and lane.limit.service_s > left_s:
            sentence = f"The model takes {lane.limit.service_s:.2f} s now, longer than the request's deadline."
            raise DeadlineExceededError(sentence, model=model.name)
        if lane.is_free:
            return
        promised = lane.is_promised(request_id, now)
        room_s = left_s if promised or not lane.has_promised else left_s * SHARE_OF_NEW
        expected_s = lane.expected_s()
        if lane.waiting(SINGLE) >= self._queue * (2 if promised else 1):
            sentence = "As many requests wait for the model as may."
        elif expected_s > room_s:
            sentence = f"The model's queue takes {expected_s:.1f} s, too long for the request's deadline."
        else:
            return
        raise OverloadedError(sentence, model=model.name, retry_after_s=lane.promise(request_id, now))

    def is_free(self, model: ServedModel) -> bool:
        """Tell whether a place can be had without a wait."""
        return self._lane(model).is_free

    async def enter(self, model: ServedModel, left_s: float, request_id: str) -> Place:
        """Return a place for a single request.

        Raises:
            OverloadedError: as `check` does.
            DeadlineExceededError: when its turn did not come within `left_s` after all.

        """
        self.check(model, left_s, request_id)
        lane = self._lane(model)
        lane.keep_promise(request_id)
        return await self._place(lane, SINGLE, model, left_s)

    @contextmanager
    def admit(self, model: ServedModel, items: int, left_s: float) -> Iterator[Batch]:
        """Count a batch's items as under way; those that are with Triton until their calls end, whatever ends before.

        Raises:
            OverloadedError: when those of earlier batches alone would take until its deadline.

        """
        lane = self._lane(model)
        rate = lane.limit.rate / (2 if lane.waiting(SINGLE) else 1)
        too_many = lane.batched + items > BATCHES * self._queue
        if lane.batched and (too_many or (rate and (lane.batched + items) / rate > left_s)):
            raise OverloadedError(
                "Batches that came earlier take longer than the request's deadline, or are as many as may be.",
                model=model.name,
                retry_after_s=min(max(1, math.ceil(lane.batched / rate) if rate else 1), LONGEST_RETRY_S),
            )
        batch = Batch(lane, items)
        try:
            yield batch
        finally:
            batch.close()

    async def wait(self, model: ServedModel, left_s: float, batch: Batch | None = None) -> Place:
        """Return a place for an item of an admitted batch, as soon as there is one.

        Raises:
            DeadlineExceededError: when there is none within `left_s`.

        """
        return await self._place(self._lane(model), BATCH, model, left_s, batch)

    async def _place(
        self, lane: Lane, queue: int, model: ServedModel, left_s: float, batch: Batch | None = None
    ) -> Place:
        if not lane.take():
            try:
                async with asyncio.timeout(left_s):
                    await lane.wait(queue)
            except TimeoutError as error:
                sentence = "The request's deadline passed before its turn came."
                raise DeadlineExceededError(sentence, model=model.name) from error
        return Place(lane, batch)


class Batch:
    """The items of one batch, counted as under way in a lane."""

    def __init__(self, lane: Lane, items: int) -> None:
        self._lane, self._items, self._with_triton = lane, items, 0
        self._closed = False
        lane.batched += items

    def close(self) -> None:
        """Count only what is still with Triton."""
        self._closed = True
        self._lane.batched -= self._items - self._with_triton

    def begin(self) -> None:
        """Count an item as being with Triton."""
        self._with_triton += 1

    def end(self) -> None:
        """Count it no longer."""
        self._with_triton -= 1
        if self._closed:
            self._lane.batched -= 1


class Place:
    """Leave to be with Triton, for one item; it belongs to the item's call and ends with it."""

    __slots__ = ("_batch", "_begun", "_lane")

    def __init__(self, lane: Lane, batch: Batch | None = None) -> None:
        self._lane: Lane | None = lane
        self._batch = batch
        self._begun = time.monotonic()
        if batch is not None:
            batch.begin()

    def end(self, error: BaseException | None = None, *, measured: bool = True) -> None:
        """Give the place back; a second time does nothing.

        Args:
            error: why the call failed; None when it was answered.
            measured: whether it tells something of Triton: a call that was never sent, or was cancelled, does not.

        """
        lane, self._lane = self._lane, None
        if lane is None:
            return
        now = time.monotonic()
        # A Triton that is not there says nothing of what it could take.
        if measured and (error is None or isinstance(error, DeadlineExceededError)):
            lane.limit.observe(now, now - self._begun, lane.with_triton, failed=error is not None)
        elif measured and isinstance(error, GatewayError) and error.status < 500:
            lane.limit.observe(now, None, lane.with_triton)
        if self._batch is not None:
            self._batch.end()
        lane.leave()
