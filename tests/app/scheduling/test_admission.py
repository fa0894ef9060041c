"""Admission: slots, turns in the queue, refusals, and the concurrency limit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

from app.api.batch import infer_all
from app.context import Context, Deadline
from app.errors import DeadlineExceededError, OverloadedError
from app.scheduling.admission import Admission
from app.scheduling.limit import FORGET_S, ConcurrencyLimit
from app.scheduling.queue import GRACE_S, MAX_PROMISES
from app.scheduling.slot import Slot
from app.tasks import sentiment
from app.telemetry.metrics import Metrics
from app.triton.question import Question
from app.triton.served import ServedModel

A, B = (ServedModel(name, sentiment.TASK, ("1",), True, 1, ()) for name in "ab")


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in a loop of its own, which must not take long."""
    asyncio.run(asyncio.wait_for(test, 5))


def made(ceiling: int, queue: int = 0) -> Admission:
    """Return an admission with a fixed limit, because its floor is above its ceiling."""
    return Admission(ceiling, queue, Metrics())


def about(model: ServedModel = A, *, request_id: str = "id", left_s: float = 5, item: bytes = b"") -> Question:
    """Return a question to a model."""
    return Question(model, None, (item,), {}, request_id, "", Deadline.after(left_s))


async def take(admission: Admission, model: ServedModel = A, *, request_id: str = "id", left_s: float = 5) -> Slot:
    """Take a slot as a single request."""
    return await admission.enter(about(model, request_id=request_id, left_s=left_s))


def give_back(slot: Slot) -> None:
    """Leave a slot after a success."""
    slot.end()


def with_rate(admission: Admission, rate: float) -> None:
    """Set the model's measured rate."""
    admission._queue(A).limit.rate = rate


def test_requests_are_refused_when_slots_and_queue_are_full() -> None:
    """Each model has its own limits, and the next request gets a returned slot."""

    async def test() -> None:
        admission = made(2)
        first = await take(admission)
        await take(admission)
        await take(admission, B)
        with pytest.raises(OverloadedError):
            await take(admission)
        give_back(first)
        await take(admission)

    run(test())


def test_waiting_requests_are_served_in_turns() -> None:
    """Single requests and batch items take turns; each queue is first in, first out."""

    async def test() -> None:
        admission, order = made(1, queue=9), []

        async def single(name: str) -> None:
            slot = await take(admission)
            order.append(name)
            give_back(slot)

        async def item(name: str) -> None:
            slot = await admission.wait(about())
            order.append(name)
            give_back(slot)

        held = await take(admission)
        waiting = [asyncio.create_task(item(f"item{number}")) for number in range(4)]
        await asyncio.sleep(0)
        waiting += [asyncio.create_task(single(f"single{number}")) for number in range(3)]
        await asyncio.sleep(0.01)
        give_back(held)
        await asyncio.gather(*waiting)
        assert [name[:-1] for name in order[:6]] in (["item", "single"] * 3, ["single", "item"] * 3)
        for kind in ("single", "item"):
            numbers = [name for name in order if name.startswith(kind)]
            assert numbers == sorted(numbers)

    run(test())


@pytest.mark.parametrize("timeout_s", [0.05, 0, -1])
def test_a_wait_ends_at_the_deadline(timeout_s: float) -> None:
    """It takes no slot from others, and leaves the queue."""

    async def test() -> None:
        admission = made(2, queue=1)
        slots = [await take(admission), await take(admission)]
        with pytest.raises(DeadlineExceededError):
            await admission.wait(about(left_s=timeout_s))
        with pytest.raises(DeadlineExceededError):
            await take(admission, left_s=timeout_s)
        for slot in slots:
            give_back(slot)
        for _ in range(2):
            await take(admission, left_s=0.5)

    run(test())


def test_callers_that_leave_free_their_turn() -> None:
    """This holds even if the slot comes at the moment of the cancellation."""

    async def test() -> None:
        admission = made(1, queue=3)
        held = await take(admission)
        first, second = (asyncio.create_task(take(admission)) for _ in range(2))
        await asyncio.sleep(0.01)
        give_back(held)
        first.cancel()
        give_back(await second)
        give_back(await take(admission))

    run(test())


def test_requests_that_would_miss_their_deadline_are_refused() -> None:
    """With six waiting and ten served a second, half a second is too short and two are enough."""

    async def test() -> None:
        admission = made(1, queue=20)
        await take(admission)
        with_rate(admission, 10)
        waiting = [asyncio.create_task(take(admission)) for _ in range(6)]
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError, match=r"takes 0\.8 s"):
            admission.check(A, Deadline.after(0.5), "id")
        admission.check(A, Deadline.after(2), "id")
        for task in waiting:
            task.cancel()

    run(test())


def test_a_batch_that_cannot_make_it_is_refused_whole() -> None:
    """A hundred items of earlier batches at ten a second take ten seconds."""

    async def test() -> None:
        admission = made(1, queue=20)
        with_rate(admission, 10)
        with admission.admit(A, 100, Deadline.after(1)):
            with pytest.raises(OverloadedError) as caught, admission.admit(A, 1, Deadline.after(5)):
                pass
            assert caught.value.retry_after_s == 10
            with admission.admit(A, 1, Deadline.after(20)):
                pass
            with pytest.raises(OverloadedError), admission.admit(A, 100, Deadline.after(60)):
                pass  # more than eight times the queue
        with admission.admit(A, 1, Deadline.after(1)):
            pass

    run(test())


def test_slots_are_promised_one_after_the_other() -> None:
    """At two a second the tenth refused request is told five seconds; without a known rate, one second."""

    async def test() -> None:
        admission = made(1)
        await take(admission)

        def told(request_id: str) -> int | None:
            with pytest.raises(OverloadedError) as caught:
                admission.check(A, Deadline.after(60), request_id)
            return caught.value.retry_after_s

        assert told("before") == 1
        with_rate(admission, 2)
        times = [told(str(number)) for number in range(10)]
        assert times == sorted(times)  # type: ignore[type-var]
        assert (times[0], times[-1]) == (1, 5)

    run(test())


def test_requests_that_return_as_told_may_join_a_longer_queue() -> None:
    """The same id may wait where a new one is refused, once, and not before its time."""

    async def test() -> None:
        admission = made(1, queue=1)
        await take(admission)
        waiting = [asyncio.create_task(take(admission))]
        await asyncio.sleep(0.01)
        with_rate(admission, 0.4)
        with pytest.raises(OverloadedError) as caught:
            admission.check(A, Deadline.after(60), "again")
        assert caught.value.retry_after_s == 3
        with pytest.raises(OverloadedError):
            admission.check(A, Deadline.after(60), "again")  # too early
        queue = admission._queue(A)
        queue._promises["again"] = admission._now()
        waiting.append(asyncio.create_task(take(admission, request_id="again", left_s=60)))
        await asyncio.sleep(0.01)
        assert queue.waiting(0) == 2
        with pytest.raises(OverloadedError):
            admission.check(A, Deadline.after(60), "other")
        with pytest.raises(OverloadedError):
            admission.check(A, Deadline.after(60), "again")
        for task in waiting:
            task.cancel()

    run(test())


def test_all_may_leave_at_once() -> None:
    """All waiting requests may be cancelled at the very moment in which slots become free."""

    async def test() -> None:
        admission = made(2, queue=9)
        callers = [asyncio.create_task(hold(admission)) for _ in range(8)]
        await asyncio.sleep(0.01)
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        queue = admission._queue(A)
        assert (queue.with_triton, queue.waiting(0)) == (0, 0)
        give_back(await take(admission))

    run(test())


def test_an_exception_at_one_item_ends_its_batch() -> None:
    """The exception is raised unchanged, the other items stop, and none counts as under way."""

    async def test() -> None:
        admission = made(2)
        asked = []

        async def send(question: Question, slot: Slot) -> None:
            (item,) = question.items
            asked.append(item)
            try:
                await asyncio.sleep(0.01)
                if item == b"0":
                    raise ZeroDivisionError
                await asyncio.sleep(0.01)
            finally:
                slot.end()

        parts: Any = SimpleNamespace(admission=admission, coalescer=SimpleNamespace(send=send))
        items: list[Any] = [b"%d" % number for number in range(6)]
        context = Context("id")
        context.spans = {"wait": 0.0}
        with pytest.raises(ZeroDivisionError), admission.admit(A, 6, Deadline.after(5)) as batch:
            await infer_all(parts, batch, about(), items, context)
        queue = admission._queue(A)
        assert (queue.batched, queue.with_triton, queue.waiting(1)) == (0, 0, 0)
        await asyncio.sleep(0.05)
        assert (queue.batched, queue.with_triton) == (0, 0)
        assert len(asked) < 6

    run(test())


async def hold(admission: Admission) -> None:
    """Take a slot and keep it."""
    slot = await take(admission)
    try:
        await asyncio.sleep(60)
    finally:
        slot.end()


def test_promises_are_forgotten() -> None:
    """Promises long past their time and the oldest of too many go: callers cannot fill the memory."""

    async def test() -> None:
        admission = made(1)
        await take(admission)
        queue = admission._queue(A)
        with_rate(admission, 1e6)
        for number in range(MAX_PROMISES + 500):
            queue.promise(str(number), 0)
            queue.promise("always the same", 0)
        assert len(queue._promises) == MAX_PROMISES
        queue.promise("late", 1 + GRACE_S + 1)
        assert list(queue._promises) == ["late"]

    run(test())


class Simulated:
    """A Triton that serves `lanes` calls at a time, `seconds` each, and its limit, in simulated time."""

    def __init__(self, lanes: int, seconds: float, ceiling: int = 128) -> None:
        self.lanes, self.seconds = lanes, seconds
        self.limit = ConcurrencyLimit(8, ceiling, 0.0)
        self._now = 0.0

    def run(self, seconds: float, *, load: int = 1000, failing: bool = False) -> int:
        """Keep it busy for a while; return the limit."""
        end = self._now + seconds
        while self._now < end:
            count = min(self.limit.value, load)
            took = self.seconds * max(1, count / self.lanes)
            self._now += took
            for _ in range(count):
                self.limit.observe(self._now, took, count, failed=failing)
        return self.limit.value


def test_the_limit_grows_where_more_is_served_at_once() -> None:
    """It finds about the server's parallelism, and does not go beyond twice that."""
    assert 24 <= Simulated(32, 0.05).run(60) <= 64
    assert Simulated(1000, 0.05).run(60) == 128


def test_the_limit_stays_near_its_floor_where_more_would_only_wait() -> None:
    """At most as many items again wait in Triton; the limit never falls below the floor, even after failures."""
    assert Simulated(4, 0.05).run(60) <= 16
    assert Simulated(1000, 0.05).run(60, failing=True) == 8


def test_the_limit_follows_the_service_time() -> None:
    """A server that loses half of its lanes shrinks it; longer calls everywhere do so only for a while."""
    server = Simulated(64, 0.05)
    wide = server.run(60)
    server.lanes = 16
    assert server.run(20) < wide / 2
    server = Simulated(64, 0.05)
    server.run(60)
    server.seconds = 0.2
    assert server.run(3 * FORGET_S) >= 48


def test_idle_time_does_not_count_as_slow() -> None:
    """After ten idle minutes, the rate of the first calls is not computed over these minutes."""

    async def test() -> None:
        admission = made(8, queue=9)
        queue = admission._queue(A)
        queue.limit._begun -= 600
        slots = [await take(admission) for _ in range(4)]
        await asyncio.sleep(0.6)
        for slot in slots:
            give_back(slot)
        assert queue.limit.rate > 5

    run(test())


def test_refused_items_count_in_the_rate() -> None:
    """They do not count in the service time; items that missed their deadline count in neither."""
    limit = ConcurrencyLimit(4, 8, 0.0)
    for number in range(1, 21):
        limit.observe(number / 10, 0.1 if number % 2 else None, 4)
    assert limit.rate == pytest.approx(10, rel=0.3)
    assert limit.service_s == pytest.approx(0.1)
    late = ConcurrencyLimit(4, 8, 0.0)
    for number in range(1, 21):
        late.observe(number / 10, 0.1, 4, failed=number % 2 == 0)
    assert late.rate == pytest.approx(5, rel=0.3)


def test_a_call_that_takes_longer_than_the_deadline_is_refused_at_once() -> None:
    """Only while other calls prove the duration; a lone call may find out whether the model is faster now."""

    async def test() -> None:
        admission = made(4, queue=9)
        admission._queue(A).limit.service_s = 2.0
        slot = await take(admission, left_s=0.5)
        with pytest.raises(DeadlineExceededError, match=r"takes 2\.00 s"):
            admission.check(A, Deadline.after(0.5), "id")
        admission.check(A, Deadline.after(3), "id")
        give_back(slot)

    run(test())


def test_few_calls_change_neither_limit_nor_rate() -> None:
    """A few calls at a time say nothing about capacity."""
    server = Simulated(64, 0.05)
    assert server.run(30, load=2) == 8
    assert server.limit.rate == 0
