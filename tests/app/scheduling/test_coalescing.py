"""Coalescing: which items share a call, their answers, and the effect of a refused item on the others."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest

from app.context import Deadline
from app.errors import BackendError, DeadlineExceededError, GatewayError, OverloadedError, TextEmptyError
from app.memory import Budget
from app.scheduling.coalescing import MAX_CALLS_PER_SERVER, MAX_COALESCED_ITEMS, Coalescer
from app.scheduling.queue import ModelQueue
from app.scheduling.slot import Batch, Slot
from app.tasks import classification, sentiment
from app.telemetry.metrics import Metrics
from app.triton.messages import rows
from app.triton.question import Answer, Question
from app.triton.served import ServedModel
from app.triton.servers import Servers

FAST = ServedModel("fast", sentiment.TASK, ("1",), True, 16, ())
BAD = b"bad"


class Echo(Servers):
    """A Triton that answers a text with itself, twice when it is long, padded to the longest; it refuses a bad one."""

    def __init__(self, models: tuple[ServedModel, ...] = (FAST,), seconds: float = 0.01) -> None:
        super().__init__(("nowhere:1",), Metrics())
        self._seconds = seconds
        (client,) = self.clients
        client.models = {model.name: model for model in models}
        client.item_s = dict.fromkeys(client.models, 0.0005)
        self.calls: list[list[bytes]] = []
        self.refusal: GatewayError = TextEmptyError("The text is bad.")
        self.most = MAX_COALESCED_ITEMS

    async def infer(self, question: Question) -> Answer:
        """Answer after a moment."""
        self.calls.append(list(question.items))
        await asyncio.sleep(self._seconds)
        if BAD in question.items or len(question.items) > self.most:
            raise self.refusal
        count, width = len(question.items), 2 if max(map(len, question.items)) > 2 else 1
        labels = np.array([[item, item if len(item) > 2 else b""][:width] for item in question.items], object)
        scores, ones = np.ones((count, width), np.float32), np.ones((count, 1))
        return Answer("1", {"label": labels, "score": scores, "token_count": ones, "truncated": ones > 1})

    @property
    def sizes(self) -> list[int]:
        """The number of items of each call."""
        return [len(call) for call in self.calls]


def slot(queue: ModelQueue | None = None, batch: Batch | None = None) -> Slot:
    """Return a slot of this queue, or of a queue of its own."""
    queue = queue or a_queue()
    assert queue.take()
    return Slot(queue, batch)


def a_queue() -> ModelQueue:
    """Return the queue of a model with 99 slots."""
    return ModelQueue("fast", 99, 99, time.monotonic(), Metrics())


def made(servers: Servers, budget: Budget | None = None) -> Coalescer:
    """Return a coalescer that sends items to a Triton."""
    return Coalescer(servers, budget or Budget(1000))


def about(text: bytes, left_s: float = 5, model: ServedModel = FAST, **options: Any) -> Question:
    """Return a question about one text."""
    return Question(model, None, (text,), options, text.decode("latin-1"), "", Deadline.after(left_s))


async def ask(
    coalescer: Coalescer, texts: list[bytes], model: ServedModel = FAST, left: float = 5, **options: Any
) -> list[Any]:
    """Ask for all at once; return answers and failures in order."""
    asked = (coalescer.send(about(text, left, model, **options), slot()) for text in texts)
    return await asyncio.gather(*asked, return_exceptions=True)


class Nearing(Deadline):
    """A deadline that is far at the first look, and near afterwards."""

    looked: ClassVar[list[bool]] = []

    def left_s(self) -> float:
        self.looked.append(True)
        return 5.0 if len(self.looked) == 1 else 0.5


def numbered(count: int) -> list[bytes]:
    """Return this many different texts, of one to three bytes."""
    return [str(number * 7).encode() for number in range(count)]


def test_waiting_items_share_a_call() -> None:
    """The first two are sent at once; the others, eight in a call, as soon as a call ends."""
    servers = Echo()
    texts = numbered(20)
    answers = asyncio.run(ask(made(servers), texts))
    assert servers.sizes == [1] * MAX_CALLS_PER_SERVER + [MAX_COALESCED_ITEMS, MAX_COALESCED_ITEMS, 2]
    for text, answer in zip(texts, answers, strict=True):
        assert answer.tensors["label"].tolist() == [[text, text] if len(text) > 2 else [text]]
        assert len(answer.tensors["score"][0]) == len(answer.tensors["label"][0])
        assert answer.tensors["token_count"].shape == (1, 1)


def test_a_lone_item_is_sent_at_once() -> None:
    """An idle gateway coalesces nothing."""

    async def test(servers: Echo) -> None:
        coalescer = made(servers)
        for text in numbered(3):
            await ask(coalescer, [text])

    servers = Echo()
    asyncio.run(test(servers))
    assert servers.sizes == [1, 1, 1]


@pytest.mark.parametrize(
    ("model", "left", "item_s"),
    [
        (FAST, 0.9, 0.0005),  # the deadline is near
        (FAST, 5, 0.02),  # the model is slow
        (replace(FAST, max_batch_size=1), 5, 0.0005),
        (replace(FAST, task=classification.TASK), 5, 0.0005),
    ],
)
def test_other_items_are_not_coalesced(model: ServedModel, left: float, item_s: float) -> None:
    """Each is sent in a call of its own, at once."""
    servers = Echo((model,))
    servers.clients[0].item_s["fast"] = item_s
    asyncio.run(ask(made(servers), numbered(6), model, left))
    assert servers.sizes == [1] * 6


def test_only_equal_options_are_coalesced() -> None:
    """Items with different options cannot share a request."""

    async def test(coalescer: Coalescer) -> None:
        await asyncio.gather(ask(coalescer, numbered(5), top=1), ask(coalescer, numbered(5), top=2))

    servers = Echo()
    asyncio.run(test(made(servers)))
    assert sorted(servers.sizes) == [1, 1, 1, 1, 3, 3]


@pytest.mark.parametrize("refusal", [TextEmptyError("It is bad."), BackendError("It crashed.")])
def test_a_refused_item_harms_no_other(refusal: GatewayError) -> None:
    """The items of its call are sent again one by one, once."""
    servers = Echo()
    servers.refusal = refusal
    texts = [*numbered(5), BAD, *numbered(3)]
    answers = asyncio.run(ask(made(servers), texts))
    assert [answer is refusal for answer in answers] == [text == BAD for text in texts]
    assert sorted(servers.sizes) == [1] * (2 + 7) + [7]


def test_failures_that_are_not_an_items_fault_fail_the_call() -> None:
    """An overload must not be made worse by sending the items again."""
    servers = Echo()
    servers.refusal = OverloadedError("Triton's queue is full.")
    answers = asyncio.run(ask(made(servers), [*numbered(4), BAD]))
    assert [isinstance(answer, OverloadedError) for answer in answers] == [False, False, True, True, True]


def test_models_that_refuse_coalesced_calls_get_no_more() -> None:
    """If each item of a refused call is accepted alone, coalescing pauses for the model."""

    async def test(coalescer: Coalescer) -> None:
        for _ in range(2):
            answers = await ask(coalescer, numbered(6))
            assert all(isinstance(answer, Answer) for answer in answers)

    servers = Echo()
    servers.most = 1
    asyncio.run(test(made(servers)))
    assert servers.sizes == [1, 1, 4, 1, 1, 1, 1] + [1] * 6


def test_items_whose_callers_left_are_not_sent() -> None:
    """A waiting item is dropped when its caller leaves; after its deadline it is answered 504."""

    async def test(servers: Echo) -> None:
        coalescer = made(servers)
        asked = [asyncio.create_task(coalescer.send(about(text), slot())) for text in numbered(4)]
        await asyncio.sleep(0.001)
        asked[3].cancel()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        assert all(isinstance(result, Answer) for result in results[:3])
        with pytest.raises(DeadlineExceededError):
            await coalescer.send(about(b"late", 0.001), slot())
        with pytest.raises(DeadlineExceededError):
            await coalescer.send(about(b"too late", 0.0), slot())

    servers = Echo()
    asyncio.run(test(servers))
    assert servers.calls[2] == [b"14"]
    assert [b"too late"] not in servers.calls


def test_waiting_items_are_served_beside_urgent_ones() -> None:
    """Items near their deadline skip the queue and keep more calls running than the limit."""

    async def test(servers: Echo) -> None:
        coalescer = made(servers)

        async def hurry() -> None:
            for _ in range(20):
                await coalescer.send(about(b"now", 0.9), slot())

        busy = [asyncio.create_task(hurry()) for _ in range(4)]
        await asyncio.sleep(0.001)
        answers = await asyncio.wait_for(ask(coalescer, numbered(5)), 5)
        assert all(isinstance(answer, Answer) for answer in answers)
        assert not any(task.done() for task in busy)
        await asyncio.gather(*busy)

    asyncio.run(test(Echo()))


def test_an_item_whose_deadline_has_come_near_is_sent_by_itself() -> None:
    """Its deadline would apply to the whole call."""

    async def test(servers: Echo) -> None:
        coalescer = made(servers)
        first = [asyncio.create_task(coalescer.send(about(text), slot())) for text in numbered(2)]
        await asyncio.sleep(0.001)
        late = asyncio.create_task(coalescer.send(replace(about(b"late"), deadline=Nearing(0)), slot()))
        others = [asyncio.create_task(coalescer.send(about(text), slot())) for text in numbered(3)]
        await asyncio.gather(*first, late, *others)

    servers = Echo()
    asyncio.run(test(servers))
    assert [b"late"] in servers.calls
    assert 3 in servers.sizes


def test_an_answer_of_another_length_is_the_models_fault() -> None:
    """An answer without one row for each item is refused."""
    with pytest.raises(BackendError):
        rows(Answer("1", {"label": np.array([[b"a"]], object)}), 2, sentiment.TASK)


def test_a_slot_ends_with_its_call_and_not_with_its_caller() -> None:
    """When a caller leaves or its deadline passes, the item's slot and bytes count until Triton answers."""

    async def test(servers: Echo) -> None:
        queue, budget = a_queue(), Budget(1000)
        coalescer, batch = made(servers, budget), Batch(queue, 5)
        leaver = asyncio.create_task(coalescer.send(about(b"left", 0.9), slot(queue, batch)))
        late = asyncio.create_task(coalescer.send(about(b"late", 0.2), slot(queue)))
        await asyncio.sleep(0.05)
        leaver.cancel()
        assert isinstance(*await asyncio.gather(leaver, return_exceptions=True), asyncio.CancelledError)
        assert isinstance(*await asyncio.gather(late, return_exceptions=True), DeadlineExceededError)
        batch.close()
        assert (queue.with_triton, queue.batched, budget.held) == (2, 1, len(b"left") + len(b"late"))
        async with asyncio.timeout(5):
            while queue.with_triton:
                await asyncio.sleep(0.01)
        assert (queue.batched, budget.held) == (0, 0)

    asyncio.run(test(Echo(seconds=0.6)))


def test_an_item_that_was_never_sent_frees_its_slot_with_its_caller() -> None:
    """An item that waits is not with Triton yet; one that shares a call is, until the call ends."""

    async def test(servers: Echo) -> None:
        queue, coalescer = a_queue(), made(servers)
        asked = [asyncio.create_task(coalescer.send(about(b"a"), slot(queue))) for _ in "12345"]
        await asyncio.sleep(0.001)
        asked[4].cancel()
        await asyncio.sleep(0.001)
        assert queue.with_triton == 4
        async with asyncio.timeout(5):
            while len(servers.sizes) < 3:
                await asyncio.sleep(0)
        assert servers.sizes == [1, 1, 2]
        asked[3].cancel()
        await asyncio.sleep(0.001)
        assert queue.with_triton == 2
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.sleep(0.001)
        assert queue.with_triton == 0

    asyncio.run(test(Echo(seconds=0.2)))


def test_a_slot_is_given_back_whatever_happens() -> None:
    """After answers, refusals, exceptions of the gateway, and cancelled calls."""

    async def test(servers: Echo) -> None:
        queue, budget = a_queue(), Budget(1000)
        coalescer = made(servers, budget)
        for text, left in ((b"a", 5.0), (BAD, 5.0), (b"late", 0.0), (b"\xff" * 3, 5.0)):
            await asyncio.gather(
                coalescer.send(about(text, left), slot(queue)),
                return_exceptions=True,
            )
        servers.refusal = RuntimeError("a fault of our own")  # type: ignore[assignment]
        with pytest.raises(RuntimeError):
            await coalescer.send(about(BAD), slot(queue))
        servers.clients[0].cancels = True
        caller = asyncio.create_task(coalescer.send(about(b"a"), slot(queue)))
        await asyncio.sleep(0.001)
        caller.cancel()
        await asyncio.sleep(0.001)
        assert (queue.with_triton, budget.held) == (0, 0)

    asyncio.run(test(Echo()))
