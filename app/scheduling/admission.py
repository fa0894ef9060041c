"""Which items may go to Triton now, which wait in their model's queue, and which are refused.

    single request --enter--> a slot | a turn in the queue | 429 at once, when the queue is full or too long to wait
    batch --admit--> its items --wait--> a slot each, in turns with the single requests
    slot --> app.scheduling.coalescing, which gives it back when the call has ended, also when its caller has left

How many slots a model has follows its measured service time: see `app.scheduling.limit`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.context import Deadline
from app.errors import DeadlineExceededError, OverloadedError
from app.scheduling.queue import BATCH, MAX_RETRY_S, SINGLE, ModelQueue
from app.scheduling.slot import Batch, Slot
from app.telemetry.metrics import Metrics
from app.triton.question import Question
from app.triton.served import ServedModel

MIN_SLOTS = 4
"""The lowest limit of a model, whatever is measured."""
SHARE_OF_NEW = 0.5
"""While slots are promised, a new request may expect to wait for at most this share of its remaining time: promised
requests come first."""
BATCH_QUEUE_FACTOR = 8
"""The limit on the items of batches under way, as a multiple of the limit on waiting single requests."""


class Admission:
    """Hands out slots, per model. Whoever gets one hands it to `Coalescer.send`, which gives it back.

    Args:
        ceiling: upper bound of each model's concurrency limit.
        queue: limit on the waiting single requests for one model.
        metrics: shows the limits.
        servers: returns the number of servers that serve a model.

    """

    def __init__(self, ceiling: int, queue: int, metrics: Metrics, servers: Callable[[str], int] = lambda _: 1) -> None:
        self._ceiling = ceiling
        self._max_waiting = queue
        self._metrics = metrics
        self._servers = servers
        self._queues: dict[str, ModelQueue] = {}

    def _queue(self, model: ServedModel) -> ModelQueue:
        floor = max(MIN_SLOTS, 2 * model.max_batch_size) * max(1, self._servers(model.name))
        queue = self._queues.get(model.name)
        if queue is None:
            queue = ModelQueue(model.name, floor, self._ceiling, self._now(), self._metrics)
            self._queues[model.name] = queue
        queue.limit.raise_to(floor)
        return queue

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    def check(self, model: ServedModel, deadline: Deadline, request_id: str) -> None:
        """Refuse a single request that would get no slot in time; called before its body is read.

        Raises:
            OverloadedError: when the queue is full or too long for the deadline; holds the time to come back.
            DeadlineExceededError: when even a call without a wait takes longer than the deadline allows.

        """
        self._check(self._queue(model), model, deadline.left_s(), request_id)

    def _check(self, queue: ModelQueue, model: ServedModel, left_s: float, request_id: str) -> None:
        if queue.with_triton and queue.limit.service_s > left_s:
            sentence = f"The model takes {queue.limit.service_s:.2f} s now, longer than the request's deadline."
            raise DeadlineExceededError(sentence, model=model.name)
        if queue.has_free_slot:
            return
        now = self._now()
        promised = queue.is_promised(request_id, now)
        room_s = left_s if promised or not queue.has_promised else left_s * SHARE_OF_NEW
        expected_s = queue.expected_s()
        if queue.waiting(SINGLE) >= self._max_waiting * (2 if promised else 1):
            sentence = "The gateway's queue for the model is full."
        elif expected_s > room_s:
            sentence = f"The model's queue takes {expected_s:.1f} s, too long for the request's deadline."
        else:
            return
        raise OverloadedError(sentence, model=model.name, retry_after_s=queue.promise(request_id, now))

    def has_free_slot(self, model: ServedModel) -> bool:
        """Return whether a slot can be had without a wait."""
        return self._queue(model).has_free_slot

    async def enter(self, question: Question) -> Slot:
        """Return a slot for a single request.

        Raises:
            OverloadedError: as `check` does.
            DeadlineExceededError: when it got no slot by its deadline.

        """
        queue = self._queue(question.model)
        self._check(queue, question.model, question.deadline.left_s(), question.request_id)
        queue.keep_promise(question.request_id)
        return await self._slot(queue, SINGLE, question)

    @contextmanager
    def admit(self, model: ServedModel, items: int, deadline: Deadline) -> Iterator[Batch]:
        """Count a batch's items as under way until the batch ends, those with Triton until their calls end.

        Raises:
            OverloadedError: when the queue of batches is full, or would take until this batch's deadline.

        """
        queue = self._queue(model)
        rate = queue.limit.rate / (2 if queue.waiting(SINGLE) else 1)
        too_many = queue.batched + items > BATCH_QUEUE_FACTOR * self._max_waiting
        if queue.batched and (too_many or (rate and (queue.batched + items) / rate > deadline.left_s())):
            raise OverloadedError(
                "The queue of batches is full, or takes longer than the request's deadline.",
                model=model.name,
                retry_after_s=min(max(1, math.ceil(queue.batched / rate) if rate else 1), MAX_RETRY_S),
            )
        batch = Batch(queue, items)
        try:
            yield batch
        finally:
            batch.close()

    async def wait(self, question: Question, batch: Batch | None = None) -> Slot:
        """Return a slot for an item of an admitted batch, as soon as there is one.

        Raises:
            DeadlineExceededError: when it got none by its deadline.

        """
        return await self._slot(self._queue(question.model), BATCH, question, batch)

    async def _slot(self, queue: ModelQueue, kind: int, question: Question, batch: Batch | None = None) -> Slot:
        if not queue.take():
            try:
                async with asyncio.timeout(question.deadline.left_s()):
                    await queue.wait(kind)
            except TimeoutError as error:
                sentence = "The request's deadline passed before its turn came."
                raise DeadlineExceededError(sentence, model=question.model.name) from error
        return Slot(queue, batch)
