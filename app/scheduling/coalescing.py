"""Items on their way to Triton: each in its own call or, where that is cheaper, several in one call.

    item --> a call at once
         --> waits while calls of its group are under way --one ends--> one call for all that wait, 8 at most

The gateway coalesces only texts, only for a model so fast that a call costs more than its item, and only while other
calls are under way. It sends each picture alone, so that decoding is spread over the steps' instances. When a coalesced
call is refused, its items are sent once more, one by one, so that no item is refused for another's fault.

Triton itself batches calls, and NVIDIA's backends fail the whole batch when one item breaks the network. So any call
that fails in that way is sent once more too, each of its items alone and in the model's turn (`app.scheduling.turns`).

An item owns its slot from its arrival until its call has ended. Its caller may go earlier: at the deadline, or when the
client leaves. Where a cancelled call would do harm, the call then runs on, and the slot and the item's bytes count
until it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from app.errors import BackendError, DeadlineExceededError, GatewayError
from app.memory import Budget
from app.scheduling.slot import Slot
from app.scheduling.turns import Turns
from app.triton.messages import rows
from app.triton.question import Answer, Question, coalesced
from app.triton.served import ServedModel
from app.triton.servers import Servers

MAX_COALESCED_ITEMS = 8
MAX_CALLS_PER_SERVER = 2
"""Concurrent calls of a group per server before further items wait to be coalesced: one is prepared while Triton works
on the other."""
MAX_ITEM_S = 0.002
"""Only models that take less than this per item get coalesced calls."""
MIN_LEFT_S = 1.0
"""Items closer to their deadline are never coalesced, because the earliest deadline applies to the whole call."""
PAUSE_S = 60.0
"""How long coalescing stays off for a model that refused a coalesced call but accepted its items one by one."""


@dataclass(eq=False)
class _Item:
    question: Question
    slot: Slot
    answer: asyncio.Future[Answer]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """The request's context variables, for log lines about its call."""
    task: asyncio.Task[None] | None = None
    """Its call; None while it waits to be coalesced."""
    alone: bool = False
    """Whether no other item shares its call."""
    ended: bool = False
    """Whether it is no longer with Triton, and its slot is given back."""
    kept_bytes: int = 0
    """Bytes of the item that still count after its caller has gone."""


@dataclass(eq=False)
class _Group:
    """Items that can share a call: of one model, version and set of options."""

    model: ServedModel
    version: str | None
    running: int = 0
    waiting: deque[_Item] = field(default_factory=deque)


class Coalescer:
    """Sends items to Triton.

    Args:
        servers: all Tritons.
        budget: counts items that are with Triton after their callers have gone.
        enabled: whether items may share a call.

    """

    def __init__(self, servers: Servers, budget: Budget, *, enabled: bool = True) -> None:
        self._servers = servers
        self._budget = budget
        self._enabled = enabled
        self._groups: dict[Hashable, _Group] = {}
        self._paused_until: defaultdict[str, float] = defaultdict(float)
        self._turns = Turns()
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, question: Question, slot: Slot) -> Answer:
        """Return the answer to a question of one item. Its slot is given back when its call has ended.

        Raises:
            GatewayError: whatever went wrong, by the table of `app.triton.status`.

        """
        loop = asyncio.get_running_loop()
        item = _Item(question, slot, loop.create_future())
        timer: asyncio.TimerHandle | None = None
        try:
            left_s = question.deadline.left_s()
            if left_s <= 0:
                sentence = "The request's deadline passed before the model was called."
                raise DeadlineExceededError(sentence, model=question.model.name)
            self._start_or_queue(item, left_s)
            timer = loop.call_later(left_s, _expire, item)
            return await item.answer
        except asyncio.CancelledError:
            if item.alone and item.task is not None and self._servers.cancel_calls:
                item.task.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if not item.ended:
                self._go_on_without_caller(item)

    def _start_or_queue(self, item: _Item, left_s: float) -> None:
        question = item.question
        key = (question.model.name, question.version, *question.parameters.items())
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(question.model, question.version)
        group.model = question.model
        if group.running >= self._max_calls(group) and left_s > MIN_LEFT_S and self._should_coalesce(group.model):
            group.waiting.append(item)
        else:
            self._start(key, group, [item])

    def _go_on_without_caller(self, item: _Item) -> None:
        """Drop an item that was not sent; count the bytes of a sent one until its call ends."""
        if item.task is None:
            item.ended = True
            item.slot.end(measured=False)
        else:
            item.kept_bytes = sum(map(len, item.question.items))
            self._budget.add(item.kept_bytes)

    def _max_calls(self, group: _Group) -> int:
        return MAX_CALLS_PER_SERVER * len(self._servers.serving(group.model.name, group.version))

    def _should_coalesce(self, model: ServedModel) -> bool:
        if not self._enabled or model.task.input != "text" or model.max_batch_size < 2:
            return False
        if time.monotonic() < self._paused_until[model.name]:
            return False
        return self._servers.item_s(model.name) < MAX_ITEM_S

    def _start(self, key: Hashable, group: _Group, items: list[_Item]) -> None:
        group.running += 1
        task = asyncio.create_task(self._run(items), context=items[0].context)
        for item in items:
            item.task, item.alone = task, len(items) == 1
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._after_call(key, group, items, done))

    def _after_call(self, key: Hashable, group: _Group, items: list[_Item], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # The call was cancelled or hit a bug of the gateway. Triton's failures are handled in `_run`.
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        for item in items:
            self._end(item, fault, measured=False)
        group.running -= 1
        # One call has ended, so one may begin, even if calls that skipped the queue exceed the limit.
        first = True
        while group.waiting and (first or group.running < self._max_calls(group)):
            first = False
            if items := self._next(key, group):
                self._start(key, group, items)
        if not group.running:
            self._groups.pop(key, None)

    def _next(self, key: Hashable, group: _Group) -> list[_Item]:
        """Take the items of the next call from those that wait; one close to its deadline is sent by itself."""
        items: list[_Item] = []
        while group.waiting and len(items) < min(MAX_COALESCED_ITEMS, group.model.max_batch_size):
            item = group.waiting.popleft()
            if item.answer.done():  # its caller has left, or its deadline has passed
                continue
            if item.question.deadline.left_s() > MIN_LEFT_S:
                items.append(item)
            else:
                self._start(key, group, [item])
        return items

    async def _run(self, items: list[_Item]) -> None:
        try:
            answers = await self._call(items)
        except GatewayError as error:
            may_be_one_items_fault = isinstance(error, BackendError) or (error.status < 500 and not error.retryable)
            if items[0].question.may_suffer(error):
                await self._run_in_turn(items, error)
            elif len(items) > 1 and may_be_one_items_fault:
                await self._run_one_by_one(items)
            else:
                for item in items:
                    self._end(item, error)
            return
        for item, answer in zip(items, answers, strict=True):
            self._end(item, None)
            if not item.answer.done():
                item.answer.set_result(answer)

    async def _call(self, items: list[_Item]) -> list[Answer]:
        answer = await self._servers.infer(coalesced([item.question for item in items]))
        return [answer] if len(items) == 1 else rows(answer, len(items), items[0].question.model.task)

    async def _run_one_by_one(self, items: list[_Item]) -> None:
        items = self._still_wanted(items)
        await asyncio.gather(*(self._run([item]) for item in items))
        self._pause_if_answered(items)

    async def _run_in_turn(self, items: list[_Item], error: GatewayError) -> None:
        """Send each item again, alone; end them with the error of their batch where too many wait already."""
        model, sent = items[0].question.model.name, []
        for item in items:
            if self._turns.is_full(model):
                self._end(item, error)
                continue
            async with self._turns.take(model):
                if self._still_wanted([item]):
                    item.question = replace(item.question, resent=True)
                    await self._run([item])
                    sent.append(item)
        if len(items) > 1:
            self._pause_if_answered(sent)

    def _still_wanted(self, items: list[_Item]) -> list[_Item]:
        """Return the items whose callers still wait, and end the others."""
        for item in items:
            if item.answer.done():
                self._end(item, None, measured=False)
        return [item for item in items if not item.ended]

    def _pause_if_answered(self, items: list[_Item]) -> None:
        """Stop coalescing for a while when each item of a failed call was answered alone."""
        if items and all(
            item.answer.done() and not item.answer.cancelled() and not item.answer.exception() for item in items
        ):
            self._paused_until[items[0].question.model.name] = time.monotonic() + PAUSE_S

    def _end(self, item: _Item, error: BaseException | None, *, measured: bool = True) -> None:
        """Give back the slot and the bytes that an item held while it was with Triton."""
        if item.ended:
            return
        item.ended = True
        self._budget.give_back(item.kept_bytes)
        late = error is None and item.question.deadline.left_s() <= 0
        item.slot.end(DeadlineExceededError("The answer came too late.") if late else error, measured=measured)
        if error is not None:
            _fail(item, error)


def _expire(item: _Item) -> None:
    sentence = "The model did not answer within the request's deadline."
    _fail(item, DeadlineExceededError(sentence, model=item.question.model.name))


def _fail(item: _Item, error: BaseException) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
