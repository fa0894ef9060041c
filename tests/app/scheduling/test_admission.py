"""Who gets a slot, who waits for one in turns, who is refused, and how many slots there are."""

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
    """Return an admission whose limit is fixed, as the floor is above the ceiling."""
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
    """Let the model's measured rate be this."""
    admission._queue(A).limit.rate = rate


def test_a_request_is_refused_at_once_when_places_and_queue_are_full() -> None:
    """The bounds are kept for each model apart, and a slot that is given back serves the next."""

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


def test_who_waits_is_served_in_turns() -> None:
    """A slot goes to a single request and to an item of a batch by turns, and within each to who came first."""

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
    """It takes no slot from anybody, and leaves the queue."""

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


def test_who_leaves_while_waiting_frees_the_turn() -> None:
    """Also when the slot comes at the very moment of the cancellation."""

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


def test_a_request_that_cannot_make_it_is_refused_before_it_waits() -> None:
    """Six wait, ten are served a second, and one never knows: half a second does not suffice, two do."""

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
    """At two a second the tenth that is refused is told five seconds; without a rate, one."""

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


def test_who_comes_back_as_told_finds_a_longer_queue() -> None:
    """A request with the same id may wait where a new one is refused, once, and not before its time."""

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
    """Those who wait are cancelled in the very moment in which the slots become free."""

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


def test_a_fault_at_one_item_leaves_nothing_of_its_batch() -> None:
    """It is raised as it is, the other items go on no further, and none counts as under way."""

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
    """Those whose time has long passed, and the oldest of too many: callers cannot fill the memory."""

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
    """A Triton that serves `lanes` calls at a time, `seconds` each, and its limit, in a time of its own."""

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
    """It finds about what the server can do at a time, and does not go beyond twice that."""
    assert 24 <= Simulated(32, 0.05).run(60) <= 64
    assert Simulated(1000, 0.05).run(60) == 128


def test_the_limit_stays_near_its_floor_where_more_would_only_wait() -> None:
    """At most as much again waits in Triton; the floor is never left, also when calls fail."""
    assert Simulated(4, 0.05).run(60) <= 16
    assert Simulated(1000, 0.05).run(60, failing=True) == 8


def test_the_limit_follows_the_service_time() -> None:
    """A server that gets half of its lanes shrinks it; one whose calls all take longer does so only for a while."""
    server = Simulated(64, 0.05)
    wide = server.run(60)
    server.lanes = 16
    assert server.run(20) < wide / 2
    server = Simulated(64, 0.05)
    server.run(60)
    server.seconds = 0.2
    assert server.run(3 * FORGET_S) >= 48


def test_an_idle_time_is_no_slow_time() -> None:
    """The first calls after ten minutes of nothing are not spread over them."""

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


def test_what_a_step_refuses_is_work_too() -> None:
    """Refused items count in the rate, and not in the service time; those that missed their deadline in neither."""
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
    """While others show how long a call takes; a lone one may find out whether it is faster now."""

    async def test() -> None:
        admission = made(4, queue=9)
        admission._queue(A).limit.service_s = 2.0
        slot = await take(admission, left_s=0.5)
        with pytest.raises(DeadlineExceededError, match=r"takes 2\.00 s"):
            admission.check(A, Deadline.after(0.5), "id")
        admission.check(A, Deadline.after(3), "id")
        give_back(slot)

    run(test())


def test_an_idle_model_says_nothing() -> None:
    """A few calls at a time neither raise the limit nor count as what could be served."""
    server = Simulated(64, 0.05)
    assert server.run(30, load=2) == 8
    assert server.limit.rate == 0
