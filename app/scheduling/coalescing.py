"""Items on their way to Triton: each in a call of its own, or, where that is cheaper, several in one call.

    item --> a call at once
         --> waits while calls for the same are under way --one ends--> one call for all that wait, 8 at most

Joined are texts for a model so fast that a call costs more than its item, and only while others are under way: an idle
gateway joins nothing. Pictures are never joined, as decoding them is to be spread over the steps' instances. When a
joined call is refused, its items are sent singly, once, so that none is refused for another's fault.

An item owns its place from the moment it comes until its call has ended. A caller may go before: at its deadline, or
when its client leaves. Where a cancelled call would do harm, the call then runs on, and the place and the item's bytes
count until it ends.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from app.errors import BackendError, DeadlineExceededError, GatewayError
from app.memory import Budget
from app.scheduling.admission import Place
from app.tasks.base import Parameter
from app.triton.messages import Answer, Question, rows
from app.triton.served import ServedModel
from app.triton.servers import Servers

MOST = 8
AT_ONCE = 2
"""So many calls for the same are under way, for each server, before items wait to be joined: one is prepared while
Triton works on the other."""
CHEAP_S = 0.002
"""Only for models that take less than this for an item."""
LEAST_LEFT_S = 1.0
"""An item whose deadline is nearer is never joined: the earliest deadline is that of all."""
ALONE_S = 60.0
"""A model that refuses joined items and takes each of them singly is not tried again for so long."""


@dataclass(eq=False)
class _Item:
    place: Place
    value: bytes
    request_id: str
    traceparent: str
    left_s: Callable[[], float]
    answer: asyncio.Future[Answer]
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    """Of its request, for the log."""
    task: asyncio.Task[None] | None = None
    """Its call; None while it waits to be joined."""
    alone: bool = False
    """Whether no other item shares its call."""
    over: bool = False
    """Whether it is with Triton no more, and its place is given back."""
    kept: int = 0
    """Its bytes that count after its caller has gone."""


@dataclass(eq=False)
class _Kind:
    """Items that can share a call: of one model, version and set of options."""

    model: ServedModel
    version: str | None
    parameters: dict[str, Parameter]
    running: int = 0
    waiting: deque[_Item] = field(default_factory=deque)


class Calls:
    """Sends items to Triton.

    Args:
        servers: all Tritons.
        budget: is told of items that are with Triton after their callers have gone.
        joins: whether items may share a call.

    """

    def __init__(self, servers: Servers, budget: Budget, *, joins: bool = True) -> None:
        self._servers = servers
        self._budget = budget
        self._joins = joins
        self._kinds: dict[Hashable, _Kind] = {}
        self._alone_until: defaultdict[str, float] = defaultdict(float)
        self._tasks: set[asyncio.Task[None]] = set()

    async def infer(
        self,
        place: Place,
        model: ServedModel,
        version: str | None,
        value: bytes,
        parameters: dict[str, Parameter],
        request_id: str,
        left_s: Callable[[], float],
        traceparent: str = "",
    ) -> Answer:
        """Return the answer to one item.

        Args:
            place: the item's leave to be with Triton. It is given back here, when the call has ended.
            left_s: returns the time that is left until the deadline.

        Raises:
            GatewayError: whatever went wrong, by the table of `app.triton.status`.

        """
        loop = asyncio.get_running_loop()
        item = _Item(place, value, request_id, traceparent, left_s, loop.create_future())
        timer: asyncio.TimerHandle | None = None
        try:
            left = left_s()
            if left <= 0:
                sentence = "The request's deadline passed before the model was called."
                raise DeadlineExceededError(sentence, model=model.name)
            self._send_or_wait(item, model, version, parameters, left)
            timer = loop.call_later(left, _expire, item, model.name)
            return await item.answer
        except asyncio.CancelledError:
            if item.alone and item.task is not None and self._servers.cancel_calls:
                item.task.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if not item.over:
                self._go_on_without_caller(item)

    def _send_or_wait(
        self, item: _Item, model: ServedModel, version: str | None, parameters: dict[str, Parameter], left: float
    ) -> None:
        key = (model.name, version, *parameters.items())
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(model, version, parameters)
        kind.model = model
        if kind.running >= self._most(kind) and left > LEAST_LEFT_S and self._pays(kind):
            kind.waiting.append(item)
        else:
            self._start(key, kind, [item])

    def _go_on_without_caller(self, item: _Item) -> None:
        """Drop an item that was not sent; let the bytes of one that was count until its call ends."""
        if item.task is None:
            item.over = True
            item.place.end(measured=False)
        else:
            item.kept = len(item.value)
            self._budget.add(item.kept)

    def _most(self, kind: _Kind) -> int:
        return AT_ONCE * len(self._servers.serving(kind.model.name, kind.version))

    def _pays(self, kind: _Kind) -> bool:
        model = kind.model
        if not self._joins or model.task.input != "text" or model.max_batch_size < 2:
            return False
        if time.monotonic() < self._alone_until[model.name]:
            return False
        return self._servers.item_s(model.name) < CHEAP_S

    def _start(self, key: Hashable, kind: _Kind, items: list[_Item]) -> None:
        kind.running += 1
        task = asyncio.create_task(self._run(kind, items), context=items[0].context)
        for item in items:
            item.task, item.alone = task, len(items) == 1
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(key, kind, items, done))

    def _ended(self, key: Hashable, kind: _Kind, items: list[_Item], task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # Cancelled, or no failure of Triton's: our own fault.
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        for item in items:
            self._end(item, fault, measured=False)
        kind.running -= 1
        # One call has ended, so one may begin, however many others did not wait for their turn.
        first = True
        while kind.waiting and (first or kind.running < self._most(kind)):
            first = False
            if items := self._next(key, kind):
                self._start(key, kind, items)
        if not kind.running:
            self._kinds.pop(key, None)

    def _next(self, key: Hashable, kind: _Kind) -> list[_Item]:
        """Take the items of the next call from those that wait; whose deadline has come near gets one of its own."""
        items: list[_Item] = []
        while kind.waiting and len(items) < min(MOST, kind.model.max_batch_size):
            item = kind.waiting.popleft()
            if item.answer.done():  # its caller has left, or its time is over
                continue
            if item.left_s() > LEAST_LEFT_S:
                items.append(item)
            else:
                self._start(key, kind, [item])
        return items

    async def _run(self, kind: _Kind, items: list[_Item]) -> None:
        try:
            answers = await self._ask(kind, items)
        except GatewayError as error:
            may_be_one_items_fault = isinstance(error, BackendError) or (error.status < 500 and not error.retryable)
            if len(items) > 1 and may_be_one_items_fault:
                await self._run_singly(kind, items)
                return
            for item in items:
                self._end(item, error)
            return
        for item, answer in zip(items, answers, strict=True):
            self._end(item, None)
            if not item.answer.done():
                item.answer.set_result(answer)

    def _end(self, item: _Item, error: BaseException | None, *, measured: bool = True) -> None:
        """Give back all that an item has held while it was with Triton."""
        if item.over:
            return
        item.over = True
        self._budget.give_back(item.kept)
        late = error is None and item.left_s() <= 0
        item.place.end(DeadlineExceededError("The answer came too late.") if late else error, measured=measured)
        if error is not None:
            _fail(item, error)

    async def _run_singly(self, kind: _Kind, items: list[_Item]) -> None:
        for item in items:
            if item.answer.done():
                self._end(item, None, measured=False)
        items = [item for item in items if not item.over]
        await asyncio.gather(*(self._run(kind, [item]) for item in items))
        if all(item.answer.done() and not item.answer.cancelled() and not item.answer.exception() for item in items):
            self._alone_until[kind.model.name] = time.monotonic() + ALONE_S

    async def _ask(self, kind: _Kind, items: list[_Item]) -> list[Answer]:
        model, first = kind.model, items[0]
        question = Question(
            model.name,
            kind.version,
            model.task.input,
            [item.value for item in items],
            model.task.outputs,
            kind.parameters,
            first.request_id,
            first.traceparent,
        )
        answer = await self._servers.infer(question, lambda: min(item.left_s() for item in items))
        return [answer] if len(items) == 1 else rows(answer, len(items), model.task)


def _expire(item: _Item, model: str) -> None:
    _fail(item, DeadlineExceededError("The model did not answer within the request's deadline.", model=model))


def _fail(item: _Item, error: BaseException) -> None:
    if not item.answer.done():
        item.answer.set_exception(error)
