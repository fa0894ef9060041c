"""The slot of an admitted item, which it holds until its call has ended, and the count of its batch's items."""

from __future__ import annotations

import time

from app.errors import DeadlineExceededError, GatewayError
from app.scheduling.queue import ModelQueue


class Batch:
    """The items of one batch, counted in their model's queue until they are answered."""

    def __init__(self, queue: ModelQueue, items: int) -> None:
        self._queue, self._items, self._with_triton = queue, items, 0
        self._closed = False
        queue.batched += items

    def close(self) -> None:
        """Count only the items that are still with Triton."""
        self._closed = True
        self._queue.batched -= self._items - self._with_triton

    def begin(self) -> None:
        """Note that an item is with Triton."""
        self._with_triton += 1

    def end(self) -> None:
        """Note that an item is no longer with Triton."""
        self._with_triton -= 1
        if self._closed:
            self._queue.batched -= 1


class Slot:
    """Permission for one item to be with Triton. It ends with the item's call, not when the caller leaves.

    If a slot ended when the client leaves, impatient clients could push Triton past the limit.
    """

    __slots__ = ("_batch", "_begun", "_queue")

    def __init__(self, queue: ModelQueue, batch: Batch | None = None) -> None:
        self._queue: ModelQueue | None = queue
        self._batch = batch
        self._begun = time.monotonic()
        if batch is not None:
            batch.begin()

    def end(self, error: BaseException | None = None, *, measured: bool = True) -> None:
        """Give the slot back; a second time does nothing.

        Args:
            error: why the call failed; None when it was answered.
            measured: whether the call says something about Triton; one that was never sent or was cancelled does not.

        """
        queue, self._queue = self._queue, None
        if queue is None:
            return
        now = time.monotonic()
        # An unreachable Triton says nothing about its capacity.
        if measured and (error is None or isinstance(error, DeadlineExceededError)):
            queue.limit.observe(now, now - self._begun, queue.with_triton, failed=error is not None)
        elif measured and isinstance(error, GatewayError) and error.status < 500:
            queue.limit.observe(now, None, queue.with_triton)
        if self._batch is not None:
            self._batch.end()
        queue.give_back()
